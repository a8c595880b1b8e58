//! Bodies larger than any memory that the proxy may take for them, both ways.
//!
//! Client and application share this process with the proxy, and hold one small buffer
//! each: what the process grows by is what the proxy keeps of a body.

mod common;

use std::time::Duration;

use common::{Proxy, route, snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a body: far more than the proxy may keep.
const BODY: usize = 256 * 1_024 * 1_024;
/// Most that the process may grow by while one passes, allocator and sockets included.
const GROWTH_MAX: usize = 32 * 1_024 * 1_024;
const DEADLINE: Duration = Duration::from_secs(120);

/// The most memory that this process ever held, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    let kibibytes = line.split_whitespace().nth(1).expect("a number");
    kibibytes.parse::<usize>().expect("a number") * 1_024
}

/// Reads a head, and returns what of the body came along.
async fn head(tcp: &mut TcpStream) -> usize {
    let mut read = Vec::new();
    let mut buffer = [0; 16 * 1_024];
    loop {
        let count = tcp.read(&mut buffer).await.expect("read");
        assert_ne!(count, 0, "it ended within the head");
        read.extend_from_slice(&buffer[..count]);
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            return read.len() - end - 4;
        }
    }
}

async fn take(tcp: &mut TcpStream, mut left: usize) {
    let mut buffer = vec![0; 16 * 1_024];
    while left > 0 {
        let count = tcp.read(&mut buffer).await.expect("read");
        assert_ne!(count, 0, "it ended {left} bytes early");
        left -= count;
    }
}

async fn give(tcp: &mut TcpStream, mut left: usize) {
    let piece = vec![b'x'; 16 * 1_024];
    while left > 0 {
        let count = left.min(piece.len());
        tcp.write_all(&piece[..count]).await.expect("written");
        left -= count;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_without_being_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    // Takes a whole request, then answers with as much.
    let application = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a connection");
        let early = head(&mut tcp).await;
        take(&mut tcp, BODY - early).await;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n");
        tcp.write_all(answer.as_bytes()).await.expect("written");
        give(&mut tcp, BODY).await;
    });
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[address])]));
    let story = async {
        let mut client = TcpStream::connect(proxy.address).await.expect("a connection");
        let before = peak();
        let asked =
            format!("POST / HTTP/1.1\r\nhost: shop.example\r\ncontent-length: {BODY}\r\n\r\n");
        client.write_all(asked.as_bytes()).await.expect("written");
        give(&mut client, BODY).await;
        let early = head(&mut client).await;
        take(&mut client, BODY - early).await;
        application.await.expect("the application's side held");
        let growth = peak() - before;
        assert!(growth < GROWTH_MAX, "the process grew by {growth} bytes");
    };
    tokio::time::timeout(DEADLINE, story).await.expect("in time");
}
