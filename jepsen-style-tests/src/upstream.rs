//! A small real HTTP server that says who it is: the application of the tests.
//!
//! | path ends with | answer |
//! |---|---|
//! | `/ping` | JSON: instance, version, metadata, request id; sets the cookie `session` |
//! | `/headers` | JSON: the request as it arrived, see `answer.rs` |
//! | `/echo` | the request's body |
//! | `/delay/MS` | the name, so much later |
//! | `/status/CODE` | that status |
//! | `/events/COUNT` | so many server-sent events, 20 ms apart |
//! | `/ws` | a WebSocket that echoes, with `?headers` after the request's headers in JSON |
//! | `/chat` | a WebSocket on which everybody hears everybody |
//! | any other | the name |
//!
//! HTTP/1.1 and HTTP/2, the latter by prior knowledge or by ALPN; each answer carries
//! `x-answered-by: NAME`.

mod answer;
mod tls;
mod websocket;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub use tls::Pem;

use answer::Answer;

/// The header that names the upstream.
pub const ANSWERED_BY: &str = "x-answered-by";

/// How an upstream differs from the plainest one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Shown by `/ping`, as the demo application of Interlock's documentation does.
    pub metadata: Option<String>,
    /// Serves TLS with it, and nothing else.
    pub tls: Option<Pem>,
}

/// A running upstream; dropping it kills it with all its connections.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    addr: SocketAddr,
    seen: Arc<Seen>,
    stop: watch::Sender<bool>,
    job: JoinHandle<()>,
}

/// What it was asked, and what it answers instead while it is told to.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicU64,
    connections: AtomicU64,
    last: Mutex<Option<Instant>>,
    /// 0 is the status that the path asks for.
    status: AtomicU16,
}

impl Upstream {
    /// Listens on `addr`.
    pub async fn start(name: &str, addr: SocketAddr) -> io::Result<Self> {
        Self::start_with(UpstreamConfig::default(), name, addr).await
    }

    /// Listens on `addr`, as `config` says.
    pub async fn start_with(
        config: UpstreamConfig,
        name: &str,
        addr: SocketAddr,
    ) -> io::Result<Self> {
        let UpstreamConfig { metadata, tls } = config;
        let tls = tls.map(|pem| pem.acceptor()).transpose()?;
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let (stop, stopped) = watch::channel(false);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let answer = Answer::new(name, metadata, scheme, seen.clone(), stopped.clone())?;
        let job = tokio::spawn(serve(listener, tls, Arc::new(answer), stopped));
        Ok(Self { name: name.to_owned(), addr, seen, stop, job })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many requests reached it.
    pub fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// How many connections it took.
    pub fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// When the last request reached it.
    pub fn last_request(&self) -> Option<Instant> {
        *self.seen.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers every request with this status from now on; `None` ends that.
    pub fn set_status(&self, status: Option<u16>) {
        self.seen.status.store(status.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Takes no new connection, finishes what it has, and then ends.
    pub async fn stop(mut self, deadline: Duration) {
        self.stop.send_replace(true);
        // What is not done by then is cut off by the drop.
        let _ = tokio::time::timeout(deadline, &mut self.job).await;
    }

    /// Cuts everything off, as a `kill -9` of the container would; returns when its
    /// address is free again.
    pub async fn kill(mut self) {
        self.job.abort();
        let _ = (&mut self.job).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.job.abort();
    }
}

/// What a connection is made of, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn secured(stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<Box<dyn Io>> {
    Ok(match tls {
        Some(tls) => Box::new(tls.accept(stream).await?),
        None => Box::new(stream),
    })
}

async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    answer: Arc<Answer>,
    mut stopped: watch::Receiver<bool>,
) {
    let server = auto::Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    // Aborting this job drops the set, and so all connections.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = stream else {
            // Out of descriptors, most likely: let some connections end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        answer.connected();
        let (server, tls, watcher) = (server.clone(), tls.clone(), graceful.watcher());
        let answer = answer.clone();
        connections.spawn(async move {
            // A client that goes away is its own business, also in a handshake.
            let Ok(stream) = secured(stream, tls).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let answer = answer.clone();
                async move { Ok::<_, Infallible>(answer.to(request).await) }
            });
            let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
            drop(watcher.watch(connection.into_owned()).await);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

#[cfg(test)]
mod tests;
