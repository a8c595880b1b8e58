//! HTTP/2 by hand: frames as a client may send them that no library would.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::DEADLINE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// DATA and HEADERS: the last of its stream.
pub const END_STREAM: u8 = 1;
/// HEADERS and CONTINUATION: the last of its block. SETTINGS and PING call 1 ACK.
pub const END_HEADERS: u8 = 4;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The block of a request's headers: method by its index (2 is GET, 3 is POST).
pub fn request(method: u8, host: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x80 | method, 0x86];
    for (index, value) in [(4, path), (1, host)] {
        block.push(index);
        block.push(u8::try_from(value.len()).expect("short"));
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A connection that says exactly what it is told.
pub struct Http2<S> {
    pub stream: S,
}

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Http2<TcpStream> {
    /// With these settings: pairs of an identifier and a value.
    pub async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        Self::begin(stream, settings).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2<S> {
    pub async fn begin(stream: S, settings: &[(u16, u32)]) -> Self {
        let mut this = Self { stream };
        let mut payload = Vec::new();
        for (identifier, value) in settings {
            payload.extend(identifier.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        this.send(&[PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()).await;
        this
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// Sends as long as the other side listens; whether it took all.
    pub async fn pour(&mut self, bytes: &[u8], times: usize) -> bool {
        for _ in 0..times {
            let sent = tokio::time::timeout(Duration::from_secs(1), self.stream.write_all(bytes));
            if !matches!(sent.await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    /// The next frame; `None` at the end, which a reset is as well.
    pub async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut header = [0; 9];
            self.stream.read_exact(&mut header).await.ok()?;
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; usize::try_from(length).expect("it fits")];
            self.stream.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            Some(Frame { kind: header[3], flags: header[4], stream, payload })
        };
        tokio::time::timeout(DEADLINE, read).await.expect("a frame or the end in time")
    }

    /// Reads to the end of the connection; the code of its GOAWAY, if it said one.
    pub async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                let bytes = frame.payload[4..8].try_into().expect("four bytes");
                code = Some(u32::from_be_bytes(bytes));
            }
        }
        code
    }

    /// The first frame of this kind for this stream.
    pub async fn find(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if (frame.kind, frame.stream) == (kind, stream) {
                return Some(frame);
            }
        }
    }
}
