//! A TLS stream that is not opened: its bytes go to an upstream of its host's route.
//!
//! Balanced as requests are; the next upstream is tried while none has taken the
//! connection. In the access log it is one line when it ends: method `TLS`, the name
//! that was asked for, and as status 200, or why no upstream took it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::balance::{ATTEMPTS_MAX, Tried};
use crate::record::Record;
use crate::socket::UpstreamStream;
use crate::sticky;
use crate::stream::Wire;
use crate::table::{RouteEntry, RouteTable};
use crate::tls::handshake::{INTERNAL_ERROR, refuse};
use crate::tunnel::{self, Tunnel};
use crate::upstream::now_ms;
use crate::worker::{Phase, Worker};

/// How long a connection may take while there are other upstreams to try.
const CONNECT_TIMEOUT_WITH_OTHERS: Duration = Duration::from_secs(1);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// A stream to pass on, and to whom.
#[derive(Debug)]
pub struct Passthrough {
    pub table: Arc<RouteTable>,
    pub entry: Arc<RouteEntry>,
    pub client: SocketAddr,
    pub tcp: TcpStream,
    /// What was read of the stream to learn the name.
    pub raw: Bytes,
    pub name: Option<Box<str>>,
}

/// Why no upstream took a stream.
struct Failed {
    status: u16,
    kind: &'static str,
}

/// Carries the stream until it ends.
pub async fn run(worker: &Rc<Worker>, stream: Passthrough, phase: &mut watch::Receiver<Phase>) {
    let Passthrough { table, entry, client, tcp, raw, name } = stream;
    let wire = Rc::new(Wire::new(Instant::now()));
    let method = Method::from_bytes(b"TLS").unwrap_or_default();
    let uri = name.as_deref().and_then(|name| name.parse::<Uri>().ok()).unwrap_or_default();
    let mut record = Box::new(Record::new(worker, &wire, client, method, uri));
    record.host = name.and_then(|name| HeaderValue::from_str(&name).ok());
    record.table = Some(Arc::clone(&table));
    record.entry = Some(Arc::clone(&entry));
    let options = &table.options;
    // A cookie stands inside of what is not opened: its route keeps nobody.
    let user = sticky::user(&entry, options, &HeaderMap::new(), client.ip());
    let idle_max = options.read_timeout;
    match connect(worker, &entry, user, &mut record, options.connect_timeout).await {
        Ok(upstream) => {
            record.status = 200;
            worker.telemetry.passed_through("ok");
            let upstream = UpstreamStream::unguarded(upstream);
            let tunnel = Tunnel { upstream, early: Bytes::new(), idle_max, record };
            tunnel::run(tunnel, tcp, [raw, Bytes::new()], phase).await;
        }
        Err(Failed { status, kind }) => {
            record.status = status;
            record.error = Some(kind);
            worker.telemetry.passed_through(kind);
            drop(record);
            refuse(tcp, &INTERNAL_ERROR).await;
        }
    }
}

async fn connect(
    worker: &Worker,
    entry: &RouteEntry,
    user: Option<u64>,
    record: &mut Record,
    timeout: Duration,
) -> Result<TcpStream, Failed> {
    let mut tried = Tried::default();
    let mut failed = Failed { status: 503, kind: "no_upstream" };
    while tried.count() < ATTEMPTS_MAX {
        let Some(position) = entry.pick(worker.thread, user, &tried, now_ms()) else { break };
        tried.push(position);
        record.candidate = Some(position);
        record.attempts += 1;
        if record.attempts > 1 {
            worker.telemetry.retried();
        }
        let upstream = &entry.candidates[position].upstream;
        let others = entry.candidates.len() > tried.count();
        let timeout = if others { timeout.min(CONNECT_TIMEOUT_WITH_OTHERS) } else { timeout };
        let connected = tokio::time::timeout(timeout, TcpStream::connect(upstream.address)).await;
        failed = match connected.map(|connected| connected.and_then(prepared)) {
            Ok(Ok(stream)) => {
                upstream.succeeded();
                return Ok(stream);
            }
            Ok(Err(_)) => Failed { status: 502, kind: "connect" },
            Err(_) => Failed { status: 504, kind: "connect_timeout" },
        };
        if upstream.failed(now_ms(), entry.dial(position)) {
            worker.telemetry.upstream_out();
        }
    }
    Err(failed)
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}
