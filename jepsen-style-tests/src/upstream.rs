//! A small real HTTP server that says who it is: the application of the tests.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | the request's body |
//! | `/headers` | JSON: method, path and headers as they arrived |
//! | `/delay/MS` | the name, so much later |
//! | `/status/CODE` | that status |
//! | any other | the name |
//!
//! HTTP/1.1 and cleartext HTTP/2; each answer carries `x-answered-by: NAME`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The header that names the upstream.
pub const ANSWERED_BY: &str = "x-answered-by";
/// The longest `/delay`.
const DELAY_MAX: Duration = Duration::from_secs(600);

/// A running upstream; dropping it kills it with all its connections.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    addr: SocketAddr,
    seen: Arc<Seen>,
    stop: watch::Sender<bool>,
    job: JoinHandle<()>,
}

/// What it was asked.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl Upstream {
    /// Listens on `addr`.
    pub async fn start(name: &str, addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let (stop, stopped) = watch::channel(false);
        let answer = Answer { name: name.into(), header: header(name)?, seen: seen.clone() };
        let job = tokio::spawn(serve(listener, Arc::new(answer), stopped));
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

    /// When the last request reached it.
    pub fn last_request(&self) -> Option<Instant> {
        *self.seen.last.lock().unwrap_or_else(PoisonError::into_inner)
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

fn header(name: &str) -> io::Result<HeaderValue> {
    HeaderValue::from_str(name).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("upstream name {name:?}: no header"))
    })
}

async fn serve(listener: TcpListener, answer: Arc<Answer>, mut stopped: watch::Receiver<bool>) {
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
        let answer = answer.clone();
        let service = hyper::service::service_fn(move |request| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(answer.to(request).await) }
        });
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        // A client that goes away is its own business.
        let connection = graceful.watch(connection);
        connections.spawn(async move { drop(connection.await) });
    }
    drop(listener);
    graceful.shutdown().await;
}

type Body = BoxBody<Bytes, hyper::Error>;

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}

#[derive(Debug)]
struct Answer {
    name: String,
    header: HeaderValue,
    seen: Arc<Seen>,
}

impl Answer {
    async fn to(&self, request: Request<Incoming>) -> Response<Body> {
        self.seen.requests.fetch_add(1, Ordering::Relaxed);
        *self.seen.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let mut answer = self.by_path(request).await;
        answer.headers_mut().insert(ANSWERED_BY, self.header.clone());
        answer
    }

    async fn by_path(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let segment = |verb: &str| path.rsplit_once(verb).map(|(_, rest)| rest);
        if path.ends_with("/echo") {
            return Response::new(request.into_body().boxed());
        }
        if path.ends_with("/headers") {
            return Response::new(full(describe(&request)));
        }
        if let Some(delay_ms) = segment("/delay/").and_then(|ms| ms.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(delay_ms).min(DELAY_MAX)).await;
        }
        let mut answer = Response::new(full(format!("{}\n", self.name)));
        if let Some(code) = segment("/status/").and_then(|code| code.parse::<u16>().ok()) {
            *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
        }
        answer
    }
}

/// The request as it arrived, in JSON.
fn describe(request: &Request<Incoming>) -> String {
    let mut headers = BTreeMap::<&str, Vec<String>>::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_default().push(value);
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    serde_json::json!({
        "method": request.method().as_str(),
        "path": path,
        "version": format!("{:?}", request.version()),
        "headers": headers,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;

    const WAIT: Duration = Duration::from_secs(5);

    async fn upstream() -> Upstream {
        Upstream::start("blue", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
    }

    #[tokio::test]
    async fn it_says_who_it_is_and_what_it_was_asked() {
        let blue = upstream().await;
        assert_eq!(http::who_answers(blue.addr(), "a.example", "/").await.unwrap(), "blue");
        let seen = http::get(blue.addr(), "a.example", "/app/headers?x=1", WAIT).await.unwrap();
        let seen: serde_json::Value = serde_json::from_slice(seen.body()).unwrap();
        assert_eq!(seen["headers"]["host"][0], "a.example");
        assert_eq!(seen["path"], "/app/headers?x=1");
        let echo = ::http::Request::post("/echo").body(Full::from("hello")).unwrap();
        assert_eq!(http::send(blue.addr(), echo, WAIT).await.unwrap().body(), "hello");
        let teapot = http::get(blue.addr(), "a", "/status/418", WAIT).await.unwrap();
        assert_eq!(teapot.status().as_u16(), 418);
        assert_eq!(blue.requests(), 4);
    }

    #[tokio::test]
    async fn a_graceful_stop_finishes_what_was_begun() {
        let blue = upstream().await;
        let addr = blue.addr();
        let request = tokio::spawn(async move { http::get(addr, "a", "/delay/200", WAIT).await });
        crate::eventually(WAIT, || {
            let requests = blue.requests();
            async move { if requests == 1 { Ok(()) } else { Err("no request yet".into()) } }
        })
        .await;
        blue.stop(WAIT).await;
        assert_eq!(request.await.unwrap().unwrap().status().as_u16(), 200);
        assert!(http::get(addr, "a", "/", WAIT).await.is_err());
    }

    #[tokio::test]
    async fn a_kill_cuts_off_what_was_begun() {
        let blue = upstream().await;
        let addr = blue.addr();
        let request = tokio::spawn(async move { http::get(addr, "a", "/delay/60000", WAIT).await });
        crate::eventually(WAIT, || {
            let requests = blue.requests();
            async move { if requests == 1 { Ok(()) } else { Err("no request yet".into()) } }
        })
        .await;
        blue.kill().await;
        assert!(request.await.unwrap().is_err());
    }
}
