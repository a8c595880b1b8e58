//! The admin endpoint over HTTP: `/livez`, `/readyz`, `/metrics`. Read-only.
//!
//! It binds loopback unless told otherwise, answers GET and HEAD alone, and never
//! reads a body.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

pub use metrics_exporter_prometheus::PrometheusHandle;

use crate::drain::DrainWatch;
use crate::ready::Readiness;

/// Where it listens unless told otherwise.
pub const DEFAULT_ADDR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9_090);
/// Connections at one time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait after an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often histograms are made ready for the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// An answer of the endpoint.
pub type Response = http::Response<Full<Bytes>>;
/// What a hook is asked for.
pub type Request = http::Request<()>;
type Hook = Arc<dyn Fn(&Request) -> Option<Response> + Send + Sync>;

/// The endpoint cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is not to be had.
    #[error("listen on {addr} for the admin endpoint")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// The metrics cannot be recorded.
    #[error("record metrics")]
    Metrics(#[source] BuildError),
}

/// The endpoint, before it runs.
#[derive(Clone)]
pub struct Admin {
    readiness: Readiness,
    metrics: Option<PrometheusHandle>,
    hook: Option<Hook>,
}

/// Begins to record metrics in this process. Once per process.
pub fn record_metrics() -> Result<PrometheusHandle, AdminError> {
    PrometheusBuilder::new().install_recorder().map_err(AdminError::Metrics)
}

/// Listens for the endpoint.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(addr).await.map_err(|error| AdminError::Listen { addr, error })
}

impl Admin {
    /// With `/livez` and `/readyz`.
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness, metrics: None, hook: None }
    }

    /// Also `/metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: PrometheusHandle) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Also whatever `hook` answers; it is asked after the paths above.
    #[must_use]
    pub fn with_hook(
        mut self,
        hook: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Answers until the drain begins.
    pub async fn serve(self, listener: TcpListener, drain: DrainWatch) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.begun() => return,
                _ = upkeep.tick() => {
                    if let Some(metrics) = &self.metrics {
                        metrics.run_upkeep();
                    }
                    continue;
                }
                accepted = accept(&listener, &connections) => accepted,
            };
            match accepted {
                Ok((tcp, permit)) => {
                    let admin = self.clone();
                    let watch = drain.clone();
                    drain.spawn(async move {
                        admin.converse(tcp, watch).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn converse(self, tcp: TcpStream, drain: DrainWatch) {
        let service = service_fn(move |request: http::Request<Incoming>| {
            let answer = self.answer(&request.map(|_| ()));
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(16 * 1_024);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(tcp), service));
        let ended = tokio::time::timeout(CONNECTION_TIMEOUT, async {
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = drain.begun() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        });
        if let Ok(Err(error)) = ended.await {
            debug!(%error, "admin connection broke off");
        }
    }

    fn answer(&self, request: &Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "read-only: GET or HEAD\n");
            refusal
                .headers_mut()
                .insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match (request.uri().path(), &self.metrics) {
            ("/livez", _) => text(StatusCode::OK, "ok\n"),
            ("/readyz", _) => self.readyz(request.uri().query().unwrap_or_default()),
            ("/metrics", Some(metrics)) => {
                let mut page = text(StatusCode::OK, metrics.render());
                page.headers_mut().insert(
                    header::CONTENT_TYPE,
                    header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
                );
                page
            }
            _ => self
                .hook
                .as_ref()
                .and_then(|hook| hook(request))
                .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "not found\n")),
        }
    }

    fn readyz(&self, query: &str) -> Response {
        let options = || query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let exclude: Vec<_> =
            options().filter(|(key, _)| *key == "exclude").map(|(_, name)| name).collect();
        let verbose = options().any(|(key, value)| key == "verbose" && value != "false");
        let report = self.readiness.report(&exclude);
        match (report.ready, verbose) {
            (true, false) => text(StatusCode::OK, "ok\n"),
            (true, true) => text(StatusCode::OK, report.text),
            // A failure always says which check.
            (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, report.text),
        }
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// A plain text answer.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = http::Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections)
        .acquire_owned()
        .await
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    let (tcp, _) = listener.accept().await?;
    Ok((tcp, permit))
}
