//! The proxy as one thing: built from a configuration, started, drained.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::HeaderValue;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access_log::{AccessLog, AccessLogError, AccessLogTarget, Writer};
use crate::problems::Problems;
use crate::secrets::Secrets;
use crate::table::SharedTable;
use crate::worker::{Limits, Shared, Worker};

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 4_096;

/// What a proxy is built from.
#[derive(Clone, Debug)]
pub struct Config {
    pub http: SocketAddr,
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
    #[error("listen on {address} for HTTP")]
    Listen {
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
    sockets: Vec<Socket>,
    address: SocketAddr,
    writer: Writer,
}

/// A proxy that serves.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    ended: mpsc::UnboundedReceiver<()>,
    writer: Writer,
}

impl Config {
    /// Takes the address, so that a port in use is told at once.
    pub fn build(self) -> Result<Server, ServerError> {
        let listen = |error| ServerError::Listen { address: self.http, error };
        // With SO_REUSEPORT alone, a forgotten proxy of the same user would silently
        // take half of the connections. So the first socket asks for the port alone.
        let probe = socket(self.http, false).map_err(listen)?;
        let address = probe
            .local_addr()
            .map_err(listen)?
            .as_socket()
            .ok_or_else(|| listen(io::ErrorKind::AddrNotAvailable.into()))?;
        drop(probe);
        let threads = self.threads.max(1);
        let sockets = (0..threads)
            .map(|_| socket(address, true))
            .collect::<io::Result<Vec<_>>>()
            .map_err(listen)?;
        let (access, writer) = AccessLog::open(&self.access_log)?;
        let proxy_id = HeaderValue::from_str(&self.name);
        let server_info = HeaderValue::from_str(&format!(
            "dovetail/v{} {}",
            env!("CARGO_PKG_VERSION"),
            platform()
        ));
        let shared = Shared {
            table: SharedTable::new(threads),
            limits: self.limits,
            access,
            secrets: self.secrets,
            problems: Problems::default(),
            proxy_id: proxy_id.unwrap_or_else(|_| HeaderValue::from_static("dovetail-proxy")),
            server_info: server_info.unwrap_or_else(|_| HeaderValue::from_static("dovetail")),
            https_port: 443,
            connections: 0.into(),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        Ok(Server { shared: Arc::new(shared), sockets, address, writer })
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
        self.address
    }

    /// Listens and serves.
    pub fn start(self) -> Result<Running, ServerError> {
        let (tell, ended) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for (number, socket) in self.sockets.into_iter().enumerate() {
            socket
                .listen(BACKLOG)
                .map_err(|error| ServerError::Listen { address: self.address, error })?;
            let listener = TcpListener::from(socket);
            let (shared, tell) = (Arc::clone(&self.shared), tell.clone());
            let thread = std::thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || {
                    if let Err(error) = serve(shared, number, listener) {
                        tracing::error!(%error, thread = number, "proxy thread ended");
                    }
                    drop(tell);
                })
                .map_err(ServerError::Thread)?;
            threads.push(thread);
        }
        Ok(Running { shared: self.shared, threads, ended, writer: self.writer })
    }
}

fn serve(shared: Arc<Shared>, thread: usize, listener: TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, Worker::new(shared, thread).run(listener))
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
