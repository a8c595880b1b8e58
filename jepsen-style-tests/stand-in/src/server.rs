//! Listeners that can go away and come back, and the connections on them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::stand_in::{Options, StandIn};
use crate::{control, engine};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How often a port that is still busy is tried again, and how long between.
const BIND_TRIES: u32 = 50;
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// Where the stand-in listens, while it does.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// As bound, once it was.
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) unix: Option<PathBuf>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    closed: CancellationToken,
    jobs: TaskTracker,
}

impl Listeners {
    pub(crate) fn new(options: &Options) -> Self {
        Self { tcp: options.tcp, unix: options.unix.clone(), open: None }
    }

    pub(crate) async fn open(&mut self, stand_in: &StandIn) -> io::Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let open = Open { closed: stand_in.inner().ended.child_token(), jobs: TaskTracker::new() };
        if let Some(address) = self.tcp {
            let listener = bind(address).await?;
            self.tcp = Some(listener.local_addr()?);
            open.listen(stand_in, Listener::Tcp(listener), Scope::Engine);
        }
        if let Some(path) = &self.unix {
            // Left behind by one that was killed.
            _ = std::fs::remove_file(path);
            let listener = UnixListener::bind(path)?;
            open.listen(stand_in, Listener::Unix(listener), Scope::Engine);
        }
        self.open = Some(open);
        Ok(())
    }

    pub(crate) async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.closed.cancel();
            open.jobs.close();
            open.jobs.wait().await;
            if let Some(path) = &self.unix {
                _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Serves the control API alone on `address`, also while the engine is away.
pub(crate) async fn serve_control(
    stand_in: &StandIn,
    address: SocketAddr,
) -> io::Result<SocketAddr> {
    let listener = bind(address).await?;
    let bound = listener.local_addr()?;
    let inner = stand_in.inner();
    let open = Open { closed: inner.ended.child_token(), jobs: inner.jobs.clone() };
    open.listen(stand_in, Listener::Tcp(listener), Scope::Control);
    Ok(bound)
}

/// The port of an engine that was just away may need a moment.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                tries += 1;
                tokio::time::sleep(BIND_PAUSE).await;
            }
            bound => return bound,
        }
    }
}

/// What a listener serves.
#[derive(Clone, Copy, Debug)]
enum Scope {
    /// The Engine API and, below `/_stand-in`, the control API.
    Engine,
    Control,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Io>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

impl Open {
    fn listen(&self, stand_in: &StandIn, listener: Listener, scope: Scope) {
        let (closed, jobs) = (self.closed.clone(), self.jobs.clone());
        let stand_in = stand_in.unguarded();
        let accepting = async move {
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = closed.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok(io) = accepted else {
                    // Out of descriptors, or the peer was gone already.
                    tokio::time::sleep(BIND_PAUSE).await;
                    continue;
                };
                let (closed, stand_in) = (closed.clone(), stand_in.clone());
                tokio::spawn(jobs.track_future(async move {
                    tokio::select! {
                        () = closed.cancelled() => {}
                        () = serve(io, stand_in, scope) => {}
                    }
                }));
            }
        };
        tokio::spawn(self.jobs.track_future(accepting));
    }
}

async fn serve(io: Box<dyn Io>, stand_in: StandIn, scope: Scope) {
    let service = service_fn(|request: Request<Incoming>| {
        let stand_in = stand_in.clone();
        async move { Ok::<_, Infallible>(answer(&stand_in, request, scope).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .serve_connection(TokioIo::new(io), service);
    // How a client ends its connection is its own affair.
    _ = connection.await;
}

async fn answer(stand_in: &StandIn, request: Request<Incoming>, scope: Scope) -> Response<Body> {
    let controls = request.uri().path().starts_with(control::ROOT);
    match scope {
        Scope::Engine if !controls => engine::answer(stand_in, request).await,
        Scope::Engine | Scope::Control => control::answer(stand_in, request).await,
    }
}
