//! One thread of the proxy: its listener, its connections, its pool. Nothing of it is shared.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dovetail_routing::entry::ProxyOptions;
use dovetail_routing::snapshot::{Revision, Snapshot};
use http::HeaderValue;
use metrics::Gauge;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access_log::{AccessLog, LineFormat};
use crate::budget::Budget;
use crate::clients::Clients;
use crate::conn;
use crate::headers::{Dates, Ports};
use crate::http2::Http2Pool;
use crate::pool::Pool;
use crate::problems::{Problems, ProxyProblem};
use crate::secrets::Secrets;
use crate::stream::Patience;
use crate::table::{SharedTable, TableError};
use crate::telemetry::{self, Telemetry};
use crate::tls::Certificates;
use crate::tls::handshake::Turns;

/// What [`Problems`] calls the problems of the access log.
const ACCESS_LOG: &str = "access_log";
/// What [`Problems`] calls the problems of TLS towards upstreams.
const UPSTREAM_TLS: &str = "upstream_tls";
/// How often idle upstream connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait after an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long idle connections of clients stay open in a drain: a client that is about
/// to send a request on one gets its answer, and is told to close.
pub const LAME_FOR: Duration = Duration::from_secs(2);

/// What all threads of the proxy share.
#[derive(Debug)]
pub struct Shared {
    pub table: SharedTable,
    pub limits: Limits,
    pub access: AccessLog,
    pub secrets: Secrets,
    /// The hosts that speak TLS, and their certificates.
    pub certificates: Certificates,
    /// What an operator should see of this proxy.
    pub problems: Problems,
    pub proxy_id: HeaderValue,
    pub server_info: HeaderValue,
    /// Where TLS is taken, for redirects.
    pub https_port: u16,
    /// Open downstream connections of all threads.
    pub connections: AtomicUsize,
    /// The same by client, where that is limited.
    pub clients: Clients,
    /// Cancelled when the drain begins.
    pub drain: CancellationToken,
    /// Cancelled when the grace period is over.
    pub cut: CancellationToken,
}

impl Shared {
    /// Puts a snapshot in force: its certificates, then its routes. Reads files. The
    /// subscriber is the only caller.
    pub fn put_in_force(&self, snapshot: &Arc<Snapshot>) -> Result<Revision, TableError> {
        // Certificates first: no request for a new route gets by a check of its clients.
        let revision =
            self.table.replace_after(snapshot, |table| self.certificates.replace(table))?;
        self.problems.replace(UPSTREAM_TLS, self.table.terms().problems());
        self.problems.replace(ACCESS_LOG, self.configure_access_log(&snapshot.options));
        Ok(revision)
    }

    /// Turns the access log to where `options` say. Returns what cannot be done.
    fn configure_access_log(&self, options: &ProxyOptions) -> Vec<ProxyProblem> {
        let problem = |label: &str, value: Option<&str>, reason: String| ProxyProblem {
            service: "".into(),
            host: "".into(),
            label: label.into(),
            value: value.unwrap_or_default().into(),
            reason: reason.into(),
        };
        let mut problems = Vec::new();
        let path = options.access_log_path.as_deref();
        if let Err(error) = self.access.configure(path) {
            let reason = dovetail_process::chain(&error);
            let reason = format!("{reason}; lines go on where they went");
            problems.push(problem("AccessLogPath", path, reason));
        }
        let format = options.access_log_format.as_deref();
        if let Some(Err(error)) = format.map(LineFormat::parse) {
            let reason = format!("{error}; lines are JSON");
            problems.push(problem("MainLogFormat", format, reason));
        }
        problems
    }

    /// Looks at the files of secrets, and puts in force what changed. Reads files.
    pub fn look_at_files(&self) {
        self.certificates.look();
        if self.table.terms().look() {
            self.problems.replace(UPSTREAM_TLS, self.table.terms().problems());
        }
    }
}

/// On which of its addresses a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Http,
    Https,
}

/// What a thread listens on.
#[derive(Debug)]
pub struct Listeners {
    pub http: std::net::TcpListener,
    pub https: Option<std::net::TcpListener>,
}

/// Limits that no snapshot changes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Of one client; 0 is no limit.
    pub connections_per_client_max: usize,
    /// From the first byte of a head to its end, and from the begin of a connection to
    /// the end of its TLS handshake.
    pub head_timeout: Duration,
    /// Between two reads of a client's body, and while a client takes none of its response.
    pub client_timeout: Duration,
    /// How long a client may be waited for until its body has brought another KiB.
    pub body_rate_window: Duration,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// No new connections; every answer asks the client to close.
    Lame,
    /// Idle connections are closed.
    Closing,
    /// All connections are broken off.
    Cut,
}

/// One thread's part of the proxy.
#[derive(Debug)]
pub struct Worker {
    pub shared: Arc<Shared>,
    pub thread: usize,
    pub pool: Pool,
    pub http2: Rc<Http2Pool>,
    pub budget: Budget,
    pub telemetry: Telemetry,
    pub ports: Ports,
    pub dates: Dates,
    pub handshakes: Turns,
    phase: watch::Sender<Phase>,
    lame: Cell<bool>,
    gauge: Gauge,
}

impl Worker {
    /// The worker of thread number `thread`.
    pub fn new(shared: Arc<Shared>, thread: usize) -> Rc<Self> {
        Rc::new(Self {
            shared,
            thread,
            pool: Pool::default(),
            http2: Rc::default(),
            budget: Budget::default(),
            telemetry: Telemetry::default(),
            ports: Ports::default(),
            dates: Dates::default(),
            handshakes: Turns::default(),
            phase: watch::Sender::new(Phase::Serving),
            lame: Cell::new(false),
            gauge: telemetry::connections(),
        })
    }

    /// How far the drain has come, and comes.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether answers ask the client to close.
    pub fn is_lame(&self) -> bool {
        self.lame.get()
    }

    /// How long a client may be silent.
    pub fn patience(&self) -> Patience {
        let limits = &self.shared.limits;
        let table = self.shared.table.pin();
        let keepalive = table.as_ref().map(|table| table.options.keepalive_timeout);
        let body = table.and_then(|table| table.snapshot().options.client_body_timeout);
        Patience {
            head: limits.head_timeout,
            idle: keepalive.unwrap_or(Duration::from_secs(75)),
            body: body.unwrap_or(limits.client_timeout),
            body_rate: limits.body_rate_window,
            send: limits.client_timeout,
            closed: limits.client_timeout / 2,
        }
    }

    /// Serves connections until the drain has ended. Runs in a `LocalSet`.
    pub async fn run(self: Rc<Self>, listeners: Listeners) -> io::Result<()> {
        let http = TcpListener::from_std(listeners.http)?;
        let https = listeners.https.map(TcpListener::from_std).transpose()?;
        let sweeper = tokio::task::spawn_local({
            let worker = Rc::clone(&self);
            async move {
                let mut every = tokio::time::interval(SWEEP_INTERVAL);
                loop {
                    every.tick().await;
                    worker.pool.sweep(Instant::now());
                    worker.http2.sweep(Instant::now());
                }
            }
        });
        tokio::join!(
            self.accept_until_drain(Some(&http), Port::Http),
            self.accept_until_drain(https.as_ref(), Port::Https),
        );
        self.lame.set(true);
        self.phase.send_replace(Phase::Lame);
        self.empty_backlog(&http, Port::Http).await;
        if let Some(https) = &https {
            self.empty_backlog(https, Port::Https).await;
        }
        drop((http, https));
        self.wait_for_connections().await;
        sweeper.abort();
        Ok(())
    }

    async fn accept_until_drain(self: &Rc<Self>, listener: Option<&TcpListener>, port: Port) {
        let Some(listener) = listener else { return };
        let drain = self.shared.drain.clone();
        let mut draining = std::pin::pin!(drain.cancelled());
        loop {
            tokio::select! {
                biased;
                () = draining.as_mut() => return,
                accepted = listener.accept() => self.accepted(accepted, port).await,
            }
        }
    }

    /// Accepts what already stands in the kernel's queue: closing would reset it.
    async fn empty_backlog(self: &Rc<Self>, listener: &TcpListener, port: Port) {
        while let Ok(accepted) =
            tokio::time::timeout(Duration::from_millis(1), listener.accept()).await
        {
            self.accepted(accepted, port).await;
        }
    }

    async fn accepted(
        self: &Rc<Self>,
        accepted: io::Result<(tokio::net::TcpStream, std::net::SocketAddr)>,
        port: Port,
    ) {
        let (tcp, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                self.telemetry.connection_ended("accept");
                tracing::debug!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return;
            }
        };
        let open = Open::new(Rc::clone(self));
        let configured =
            self.shared.table.pin().and_then(|table| table.snapshot().options.max_connections);
        let configured = configured.and_then(|limit| limit.try_into().ok()).unwrap_or(usize::MAX);
        if open.count > self.shared.limits.connections_max.min(configured) {
            self.telemetry.connection_ended("too_many");
            return;
        }
        tokio::task::spawn_local(async move {
            conn::run(Rc::clone(&open.worker), tcp, client, port).await;
            drop(open);
        });
    }

    async fn wait_for_connections(&self) {
        // Every connection holds a receiver.
        let empty = self.phase.closed();
        let cut = self.shared.cut.cancelled();
        let mut both = std::pin::pin!(async {
            tokio::select! {
                () = empty => true,
                () = cut => false,
            }
        });
        let finished = match tokio::time::timeout(LAME_FOR, both.as_mut()).await {
            Ok(finished) => finished,
            Err(_) => {
                self.phase.send_replace(Phase::Closing);
                both.await
            }
        };
        if !finished {
            self.phase.send_replace(Phase::Cut);
            // Their last act is to drop what they hold, and to be logged.
            let _ = tokio::time::timeout(Duration::from_millis(500), self.phase.closed()).await;
        }
    }
}

/// An open connection, counted.
#[derive(Debug)]
struct Open {
    worker: Rc<Worker>,
    count: usize,
}

impl Open {
    fn new(worker: Rc<Worker>) -> Self {
        let count = worker.shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        worker.gauge.increment(1.0);
        Self { worker, count }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.gauge.decrement(1.0);
    }
}
