//! Versions and streams: HTTP/1.0, events as they come, large bodies in little memory, and
//! HTTP/2 on one side with HTTP/1.1 on the other.

mod common;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use common::http2::{Http2Client, data, rest, send_all};
use common::upstream::{App, Script};
use common::{DEADLINE, Proxy, RawClient, raw, route, snapshot, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Most that the proxy, clients and applications of a test may take together.
const MEMORY_MAX: usize = 24 * 1_024 * 1_024;
const LARGE: usize = 64 * 1_024 * 1_024;

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("the kernel says it");
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number") * rustix::param::page_size()
}

/// Reads a head, and what else came.
async fn head(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut bytes).await.expect("read") > 0, "a whole head");
    }
    bytes
}

/// An application that says `first`, and `second` once it is told to.
async fn two_steps(first: String, second: &'static str) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        head(&mut stream).await;
        stream.write_all(first.as_bytes()).await.expect("sent");
        told.await.expect("told");
        stream.write_all(second.as_bytes()).await.expect("sent");
    });
    (address, tell)
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";
    for (kind, first, second) in [
        (CHUNKED, "d\r\ndata: first\n\n\r\n", "e\r\ndata: second\n\n\r\n0\r\n\r\n"),
        ("\r\n", "data: first\n\n", "data: second\n\n"),
    ] {
        let (address, tell) = two_steps(format!("{EVENTS}{kind}{first}"), second).await;
        let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[address])]));
        let mut client = RawClient::connect(proxy.address).await;
        client.send("GET /events HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
        let mut seen = client.some().await;
        while !seen.contains("data: first\n\n") {
            seen += &client.some().await;
        }
        // It has reached the client before the second one was even sent.
        tell.send(()).expect("it waits");
        while !seen.contains("data: second\n\n") {
            seen += &client.some().await;
        }
    }
    // The same over HTTP/2.
    let first = format!("{EVENTS}{CHUNKED}5\r\nfirst\r\n");
    let (address, tell) = two_steps(first, "6\r\nsecond\r\n0\r\n\r\n").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    let mut begun = client.begin_with("/events", true, "text/plain").await;
    let mut body = begun.head().await.expect("an answer").into_body();
    assert_eq!(data(&mut body).await.expect("more").expect("data"), "first");
    tell.send(()).expect("it waits");
    assert_eq!(data(&mut body).await.expect("more").expect("data"), "second");
}

/// An application that reads nothing of a body until it is told to, and then all of it.
async fn late_reader() -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let bytes = head(&mut stream).await;
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        assert!(text.contains(&format!("content-length: {LARGE}\r\n")), "{text}");
        let begun = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let mut left = LARGE - (bytes.len() - begun);
        if told.await.is_err() {
            return;
        }
        let mut buffer = vec![0; 64 * 1_024];
        while left > 0 {
            let count = stream.read(&mut buffer).await.expect("read");
            assert!(count > 0, "{left} bytes are missing");
            left -= count;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.expect("sent");
    });
    (address, tell)
}

#[tokio::test]
async fn a_large_upload_waits_at_the_client_while_nobody_reads_it() {
    static PIECE: [u8; 64 * 1_024] = [b'x'; 64 * 1_024];
    let (address, tell) = late_reader().await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[address])]));
    let mut client = RawClient::connect(proxy.address).await;
    let before = resident();
    let head = format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {LARGE}\r\n\r\n");
    client.send(head).await;
    let mut left = LARGE;
    let mut tell = Some(tell);
    while left > 0 {
        let write = client.stream.write(&PIECE[..left.min(PIECE.len())]);
        // Nothing was written when it is given up.
        match tokio::time::timeout(Duration::from_millis(500), write).await {
            Ok(written) => left -= written.expect("sent"),
            Err(_) => {
                assert!(left > LARGE / 2, "the proxy took nearly all: {left} bytes are left");
                let grown = resident().saturating_sub(before);
                assert!(grown < MEMORY_MAX, "grew by {grown} bytes");
                tell.take().expect("it waits once").send(()).expect("it waits");
            }
        }
    }
    assert!(tell.is_none(), "the proxy took all that nobody read");
    let answer = client.answer(false).await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    let grown = resident().saturating_sub(before);
    assert!(grown < MEMORY_MAX, "grew by {grown} bytes");
}

#[tokio::test]
async fn a_large_upload_over_http_2_waits_as_well() {
    let (address, tell) = late_reader().await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[address])]));
    let client = Http2Client::connect(proxy.address).await;
    let request = http::Request::post("http://shop.example/")
        .header("content-length", LARGE.to_string())
        .body(())
        .expect("a request");
    let mut sender = client.sender.clone().ready().await.expect("it takes requests");
    let (answer, mut send) = sender.send_request(request, false).expect("sent");
    let before = resident();
    let mut left = LARGE;
    let mut tell = Some(tell);
    while left > 0 {
        send.reserve_capacity(left.min(64 * 1_024));
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx));
        match tokio::time::timeout(Duration::from_millis(500), room).await {
            Ok(room) => {
                let room = room.expect("open").expect("open").min(left);
                left -= room;
                send.send_data(Bytes::from(vec![b'x'; room]), left == 0).expect("sent");
            }
            Err(_) => {
                assert!(left > LARGE / 2, "the proxy took nearly all: {left} bytes are left");
                let grown = resident().saturating_sub(before);
                assert!(grown < MEMORY_MAX, "grew by {grown} bytes");
                tell.take().expect("it waits once").send(()).expect("it waits");
            }
        }
    }
    assert!(tell.is_none(), "the proxy took all that nobody read");
    let answer = tokio::time::timeout(DEADLINE, answer).await.expect("in time");
    assert_eq!(answer.expect("an answer").status(), 200);
}

#[tokio::test]
async fn http_1_0_is_closed_after_its_answer_unless_it_asks_to_stay() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    let request =
        |path: &str, more: &str| format!("GET {path} HTTP/1.0\r\nHost: shop.example\r\n{more}\r\n");
    let answer = raw(proxy.address, request("/", "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("app"), "{answer}");
    let mut client = RawClient::connect(proxy.address).await;
    for _ in 0..3 {
        client.send(request("/", "Connection: keep-alive\r\n")).await;
        let answer = client.answer(false).await.expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "app"));
        assert_eq!(answer.header("connection"), Some("keep-alive"), "it is told");
    }
    // The end of the body is the end of the connection, where nothing else says it.
    client.send(request("/chunked", "Connection: keep-alive\r\n")).await;
    let answer = client.answer(false).await.expect("an answer");
    assert_eq!(answer.body, "one two");
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(client.is_at_end().await);
    // The application is spoken to in HTTP/1.1 all the same.
    assert!(app.last().headers.contains_key("host"));
    let close = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    let answer = raw(proxy.address, close.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("app"), "{answer}");
}

#[tokio::test]
async fn trailers_pass_between_http_1_1_and_http_2() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    let mut client = Http2Client::connect(proxy.address).await;
    let mut begun = client.begin_with("/trailers", true, "text/plain").await;
    let head = begun.head().await.expect("an answer");
    for hop in ["connection", "transfer-encoding", "keep-alive"] {
        assert!(!head.headers().contains_key(hop), "{hop}");
    }
    let (count, trailers) = rest(&mut head.into_body()).await.expect("it ends");
    assert_eq!((count, trailers.get("x-sum").map(|sum| sum.as_bytes())), (7, Some(&b"7"[..])));
    // The other way: a body with trailers becomes chunks, and arrives whole.
    let mut begun = client.begin_with("/echo", false, "text/plain").await;
    send_all(&mut begun.send, Bytes::from("abc")).await.expect("sent");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("3"));
    begun.send.send_trailers(trailers).expect("sent");
    let mut body = begun.head().await.expect("an answer").into_body();
    assert_eq!(data(&mut body).await.expect("more").expect("data"), "abc");
    assert_eq!(app.last().headers["transfer-encoding"], "chunked");
}

#[tokio::test]
async fn a_client_of_http_2_that_gives_up_lets_the_application_go() {
    let first = "HTTP/1.1 200 OK\r\n\r\nfirst".to_owned();
    let (address, tell) = two_steps(first, "second").await;
    let silent = Script::start(b"", false).await;
    let routes = vec![
        route("shop.example", "/", &[address]),
        route("shop.example", "/silent", &[silent.address]),
    ];
    let proxy = Proxy::start(&snapshot(1, routes));
    let mut client = Http2Client::connect(proxy.address).await;
    let mut begun = client.begin_with("/silent", true, "text/plain").await;
    until("it is under way", async || silent.connections.load(Ordering::Relaxed) > 0).await;
    begun.send.send_reset(h2::Reason::CANCEL);
    until("it is let go", async || silent.ended.load(Ordering::Relaxed) > 0).await;
    // Another request of the connection goes on.
    let mut begun = client.begin_with("/", true, "text/plain").await;
    let mut body = begun.head().await.expect("an answer").into_body();
    assert_eq!(data(&mut body).await.expect("more").expect("data"), "first");
    tell.send(()).expect("it waits");
    assert_eq!(data(&mut body).await.expect("more").expect("data"), "second");
}
