//! The proxy as one thing: built from a configuration, started, drained.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::Duration;

use http::HeaderValue;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access_log::{AccessLog, AccessLogError, AccessLogTarget, Writer};
use crate::clients::Clients;
use crate::problems::Problems;
use crate::secrets::Secrets;
use crate::table::SharedTable;
use crate::tls::Certificates;
use crate::worker::{Limits, Listeners, Shared, Worker};

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 4_096;
/// How often the files of certificates are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a proxy is built from.
#[derive(Clone, Debug)]
pub struct Config {
    pub http: SocketAddr,
    /// Where TLS is taken, if it is.
    pub https: Option<SocketAddr>,
    /// Threads that serve requests.
    pub threads: usize,
    /// What this proxy is called in `x-proxy-id`.
    pub name: String,
    pub access_log: AccessLogTarget,
    pub secrets: Secrets,
    pub limits: Limits,
}

/// A proxy that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("listen on {address} for {protocol}")]
    Listen {
        protocol: &'static str,
        address: SocketAddr,
        #[source]
        error: io::Error,
    },
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    #[error("start a thread")]
    Thread(#[source] io::Error),
}

/// A proxy that has its address, and does not listen yet.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    http: Sockets,
    https: Option<Sockets>,
    writer: Writer,
}

/// An address, bound once for each thread.
#[derive(Debug)]
struct Sockets {
    protocol: &'static str,
    address: SocketAddr,
    sockets: Vec<Socket>,
}

/// A proxy that serves.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Ends the thread that looks at the files of certificates, once dropped.
    _looking: std::sync::mpsc::Sender<()>,
    ended: mpsc::UnboundedReceiver<()>,
    writer: Writer,
}

impl Config {
    /// Takes the address, so that a port in use is told at once.
    pub fn build(self) -> Result<Server, ServerError> {
        let threads = self.threads.max(1);
        let http = Sockets::bind("HTTP", self.http, threads)?;
        let https = self.https.map(|https| Sockets::bind("HTTPS", https, threads)).transpose()?;
        let (access, writer) = AccessLog::open(&self.access_log, &self.name)?;
        let proxy_id = HeaderValue::from_str(&self.name);
        let server_info = HeaderValue::from_str(&format!(
            "dovetail/v{} {}",
            env!("CARGO_PKG_VERSION"),
            platform()
        ));
        let problems = Problems::default();
        let shared = Shared {
            table: SharedTable::new(threads, self.secrets.clone()),
            limits: self.limits,
            access,
            certificates: Certificates::new(self.secrets.clone(), problems.clone()),
            secrets: self.secrets,
            problems,
            proxy_id: proxy_id.unwrap_or_else(|_| HeaderValue::from_static("dovetail-proxy")),
            server_info: server_info.unwrap_or_else(|_| HeaderValue::from_static("dovetail")),
            https_port: https.as_ref().map_or(443, |https| https.address.port()),
            connections: 0.into(),
            clients: Clients::default(),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        Ok(Server { shared: Arc::new(shared), http, https, writer })
    }
}

impl Sockets {
    fn bind(
        protocol: &'static str,
        address: SocketAddr,
        threads: usize,
    ) -> Result<Self, ServerError> {
        let listen = |error| ServerError::Listen { protocol, address, error };
        // With SO_REUSEPORT alone, a forgotten proxy of the same user would silently
        // take half of the connections. So the first socket asks for the port alone.
        let probe = socket(address, false).map_err(listen)?;
        let found = probe
            .local_addr()
            .map_err(listen)?
            .as_socket()
            .ok_or_else(|| listen(io::ErrorKind::AddrNotAvailable.into()))?;
        drop(probe);
        let sockets = (0..threads).map(|_| socket(found, true)).collect::<io::Result<Vec<_>>>();
        Ok(Self { protocol, address: found, sockets: sockets.map_err(listen)? })
    }

    /// Listens on the socket of the next thread.
    fn listen(&mut self) -> Result<TcpListener, ServerError> {
        let Self { protocol, address, .. } = *self;
        let failed = |error| ServerError::Listen { protocol, address, error };
        let socket = self.sockets.pop().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        socket.listen(BACKLOG).map_err(failed)?;
        Ok(socket.into())
    }
}

/// Operating system and machine, in Docker's words, as Interlock prints them.
fn platform() -> String {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{machine}", std::env::consts::OS)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it, connections that linger after a restart would keep the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl Server {
    /// What its threads share; the table is put in force here.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where it will listen; the port that was found if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.http.address
    }

    /// The same for TLS.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.https.as_ref().map(|https| https.address)
    }

    /// Listens and serves.
    pub fn start(mut self) -> Result<Running, ServerError> {
        let (tell, ended) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for number in 0..self.http.sockets.len() {
            let http = self.http.listen()?;
            let https = self.https.as_mut().map(Sockets::listen).transpose()?;
            let listeners = Listeners { http, https };
            let (shared, tell) = (Arc::clone(&self.shared), tell.clone());
            let thread = std::thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || {
                    if let Err(error) = serve(shared, number, listeners) {
                        tracing::error!(%error, thread = number, "proxy thread ended");
                    }
                    drop(tell);
                })
                .map_err(ServerError::Thread)?;
            threads.push(thread);
        }
        let looking = look_at_files(Arc::clone(&self.shared)).map_err(ServerError::Thread)?;
        Ok(Running { shared: self.shared, threads, _looking: looking, ended, writer: self.writer })
    }
}

/// Starts the thread that looks at the files of certificates. It ends with the sender.
fn look_at_files(shared: Arc<Shared>) -> io::Result<std::sync::mpsc::Sender<()>> {
    let (ends, end) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("certificates".into()).spawn(move || {
        while end.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            shared.look_at_files();
        }
    })?;
    Ok(ends)
}

fn serve(shared: Arc<Shared>, thread: usize, listeners: Listeners) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, Worker::new(shared, thread).run(listeners))
}

impl Running {
    /// What its threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns once every thread has ended, which without a drain is a failure. Cancel-safe.
    pub async fn ended(&mut self) {
        while self.ended.recv().await.is_some() {}
    }

    /// Stops accepting, lets requests end for `grace`, then breaks them off. Returns
    /// how many connections that hit.
    pub async fn drain(mut self, grace: Duration) -> usize {
        self.shared.drain.cancel();
        let mut cut = 0;
        if tokio::time::timeout(grace, self.ended()).await.is_err() {
            cut = self.shared.connections.load(std::sync::atomic::Ordering::Relaxed);
            self.shared.cut.cancel();
            self.ended().await;
        }
        for thread in self.threads {
            // A thread that panicked said so.
            let _ = thread.join();
        }
        self.writer.finish();
        cut
    }
}
