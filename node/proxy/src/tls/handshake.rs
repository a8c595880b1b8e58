//! From the first byte on the TLS port to a stream that carries requests, or to an upstream.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rustls::HandshakeKind;
use tokio::net::TcpStream;
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::hello::{Hello, HelloReader, InvalidHello};
use super::table::{HostTls, Mode};
use crate::carrier::Replayed;
use crate::conn::{ClientTls, linger};
use crate::table::{RouteEntry, RouteTable};
use crate::worker::Worker;

/// Signatures that one thread makes before it looks at its other connections again.
pub const PER_TURN_MAX: usize = 8;
/// Handshakes of one thread that may wait for their signature; more are refused, since
/// those that wait would only run into their deadline.
pub const WAITING_MAX: usize = 1_024;

/// `alert` of TLS, fatal: `unrecognized_name` (RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// The same: `internal_error`.
pub const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// What a connection on the TLS port became.
#[derive(Debug)]
pub enum Opened {
    Terminated {
        stream: Box<TlsStream<Replayed>>,
        tls: ClientTls,
        http2: bool,
    },
    /// The bytes go on as they came.
    Passthrough {
        table: Arc<RouteTable>,
        entry: Arc<RouteEntry>,
        tcp: TcpStream,
        raw: Bytes,
        name: Option<Box<str>>,
    },
}

/// Why nothing came of a connection.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("read the ClientHello")]
    Read(#[source] io::Error),
    #[error("it ended before its ClientHello did")]
    Closed,
    #[error("ClientHello")]
    Hello(#[source] InvalidHello),
    #[error("no host for the name {0:?}, and no default backend with TLS")]
    UnknownName(Option<Box<str>>),
    #[error("no certificate for {0:?} can be used")]
    Unusable(Option<Box<str>>),
    #[error("too many handshakes wait")]
    Busy,
    #[error("handshake")]
    Handshake(#[source] io::Error),
}

impl Refused {
    /// A word for the metric label: few, stable.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Read(_) | Self::Closed => "closed",
            Self::Hello(_) => "not_tls",
            Self::UnknownName(_) => "unknown_name",
            Self::Unusable(_) => "no_certificate",
            Self::Busy => "busy",
            Self::Handshake(_) => "failed",
        }
    }
}

/// Opens a connection; `held` is what was read of it already. The caller has the deadline.
pub async fn open(worker: &Worker, tcp: TcpStream, held: Bytes) -> Result<Opened, Refused> {
    let hello = match read_hello(&tcp, held).await {
        Ok(hello) => hello,
        Err(refused) => {
            if let Refused::Hello(InvalidHello::Tls { alert, .. }) = &refused {
                refuse(tcp, alert).await;
            }
            return Err(refused);
        }
    };
    let table = worker.shared.certificates.pin();
    let refused = match table.find(hello.name.as_deref()) {
        Some(Mode::Terminate(host)) => return terminate(worker, tcp, hello, host).await,
        Some(Mode::Passthrough(entry)) => {
            let entry = Arc::clone(entry);
            // It has routes, or it would have no host.
            let Some(table) = table.routes().cloned() else { return Err(Refused::Closed) };
            let Hello { raw, name, .. } = hello;
            return Ok(Opened::Passthrough { table, entry, tcp, raw, name });
        }
        Some(Mode::Unusable { .. }) => Refused::Unusable(hello.name),
        None => Refused::UnknownName(hello.name),
    };
    refuse(tcp, &UNRECOGNIZED_NAME).await;
    Err(refused)
}

async fn read_hello(tcp: &TcpStream, held: Bytes) -> Result<Hello, Refused> {
    let mut reader = HelloReader::default();
    if !held.is_empty()
        && let Some(hello) = reader.feed(&held).map_err(Refused::Hello)?
    {
        return Ok(hello);
    }
    let mut buffer = [0; 4_096];
    loop {
        tcp.readable().await.map_err(Refused::Read)?;
        let count = match tcp.try_read(&mut buffer) {
            Ok(0) => return Err(Refused::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(Refused::Read(error)),
        };
        if let Some(hello) = reader.feed(&buffer[..count]).map_err(Refused::Hello)? {
            return Ok(hello);
        }
    }
}

async fn terminate(
    worker: &Worker,
    tcp: TcpStream,
    hello: Hello,
    host: &HostTls,
) -> Result<Opened, Refused> {
    let Hello { accepted, rest, .. } = hello;
    let Some(turn) = worker.handshakes.turn().await else {
        refuse(tcp, &INTERNAL_ERROR).await;
        return Err(Refused::Busy);
    };
    let start = StartHandshake::from_parts(accepted, Replayed { tcp, held: rest });
    // The signature is made here.
    let mut handshake = start.into_stream(Arc::clone(&host.config)).into_fallible();
    let first = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut handshake).poll(cx))
    })
    .await;
    turn.end();
    let done = match first {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => handshake.await,
    };
    let stream = match done {
        Ok(stream) => Box::new(stream),
        Err((error, Replayed { tcp, .. })) => {
            linger(tcp).await;
            return Err(Refused::Handshake(error));
        }
    };
    let session = stream.get_ref().1;
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    worker.telemetry.handshake(if resumed { "resumed" } else { "full" });
    let http2 = session.alpn_protocol() == Some(b"h2");
    let suite = session.negotiated_cipher_suite();
    let tls = ClientTls {
        client_ca: host.client_ca.clone(),
        protocol: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        // rustls writes TLS13_ where the standard has TLS_.
        cipher: suite.map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_").into()),
        server_name: session.server_name().map(Into::into),
    };
    Ok(Opened::Terminated { stream, tls, http2 })
}

/// Tells the client why, if it listens, and ends the connection.
pub async fn refuse(tcp: TcpStream, alert: &[u8]) {
    // A few bytes on a fresh connection: it takes them, or is gone.
    let _ = tcp.try_write(alert);
    linger(tcp).await;
}

/// Keeps the signatures of many handshakes from starving requests: so many are made, then
/// the thread's other work has its turn.
#[derive(Debug)]
pub struct Turns {
    permits: Arc<tokio::sync::Semaphore>,
    waiting: std::cell::Cell<usize>,
}

/// A handshake's turn.
#[derive(Debug)]
pub struct Turn(tokio::sync::OwnedSemaphorePermit);

impl Default for Turns {
    fn default() -> Self {
        let permits = Arc::new(tokio::sync::Semaphore::new(PER_TURN_MAX));
        Self { permits, waiting: std::cell::Cell::new(0) }
    }
}

impl Turns {
    /// Waits for a turn; `None` when too many wait already.
    pub async fn turn(&self) -> Option<Turn> {
        struct Waits<'t>(&'t std::cell::Cell<usize>);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        if self.waiting.get() >= WAITING_MAX {
            return None;
        }
        self.waiting.set(self.waiting.get() + 1);
        let waits = Waits(&self.waiting);
        // Never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        drop(waits);
        Some(Turn(permit))
    }
}

impl Turn {
    /// The work is done: the next may begin once the thread has seen to its other work.
    fn end(self) {
        tokio::task::spawn_local(async move {
            tokio::task::yield_now().await;
            drop(self.0);
        });
    }
}
