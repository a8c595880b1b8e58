//! Applications behind the proxy: a well-behaved one, and one that does as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// What an application saw of a request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An application that answers by the path it is asked for.
pub struct App {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    job: tokio::task::JoinHandle<()>,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl App {
    pub async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::serve(name, listener)
    }

    pub fn serve(name: &'static str, listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let connections = Arc::<AtomicUsize>::default();
        let job = tokio::spawn({
            let (seen, connections) = (Arc::clone(&seen), Arc::clone(&connections));
            async move {
                let mut open = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::Relaxed);
                    open.spawn(serve_over(name, stream, Arc::clone(&seen)));
                }
            }
        });
        Self { address, seen, connections, job }
    }

    /// Everything that it saw, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().expect("not poisoned").len()
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// Ends it, and all its connections.
    pub fn stop(&self) {
        self.job.abort();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.job.abort();
    }
}

/// Serves one connection, whatever carries it, and notes what it sees.
pub async fn serve_over<S>(name: &'static str, stream: S, seen: Arc<Mutex<Vec<Seen>>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let seen = Arc::clone(&seen);
        async move { Ok::<_, Infallible>(reply(name, request, &seen).await) }
    });
    let conn = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let _ = conn.with_upgrades().await;
}

fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(bytes.into()).boxed()
}

/// `/echo` sends the body back, `/status/N` that status, `/slow/MS` waits first,
/// `/bytes/N` so many bytes, `/chunked` and `/trailers` pieces, `/early` answers before
/// it reads, `/upgrade` switches protocols and echoes, anything else its name.
async fn reply(name: &'static str, request: Request<Incoming>, seen: &Mutex<Vec<Seen>>) -> Answer {
    let (parts, body) = request.into_parts();
    let target = parts.uri.to_string();
    let path = parts.uri.path().to_owned();
    let note = |body: Bytes| {
        let (method, headers) = (parts.method.clone(), parts.headers.clone());
        let request = Seen { method, target: target.clone(), headers, body };
        seen.lock().expect("not poisoned").push(request);
    };
    if path == "/early" {
        note(Bytes::new());
        let mut answer = Response::new(full("no thanks"));
        *answer.status_mut() = StatusCode::EXPECTATION_FAILED;
        return answer;
    }
    if path == "/upgrade" && parts.headers.contains_key("upgrade") {
        note(Bytes::new());
        return upgrade(Request::from_parts(parts, body));
    }
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Response::new(full("")),
    };
    note(body.clone());
    let rest = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.parse::<u64>().ok());
    let mut answer = if let Some(ms) = rest("/slow/") {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Response::new(full(name))
    } else if let Some(count) = rest("/bytes/") {
        let count = usize::try_from(count).expect("it fits");
        Response::new(pieces(count))
    } else {
        match path.as_str() {
            "/echo" => Response::new(full(body)),
            "/chunked" | "/trailers" => {
                let mut frames = vec![Frame::data(Bytes::from("one ")), Frame::data("two".into())];
                if path == "/trailers" {
                    let trailers: HeaderMap =
                        [(HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]
                            .into_iter()
                            .collect();
                    frames.push(Frame::trailers(trailers));
                }
                let frames = frames.into_iter().map(Ok::<_, Infallible>);
                Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed())
            }
            _ => Response::new(full(name)),
        }
    };
    if path == "/trailers" {
        answer.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    }
    if let Some(status) = rest("/status/") {
        let status = u16::try_from(status).expect("it fits");
        *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
        if matches!(status, 204 | 304) {
            *answer.body_mut() = full("");
        }
    }
    answer.headers_mut().insert("x-app", HeaderValue::from_static(name));
    answer
}

fn pieces(count: usize) -> BoxBody<Bytes, Infallible> {
    static ZEROS: [u8; 64 * 1_024] = [b'0'; 64 * 1_024];
    let sizes = std::iter::successors(Some(count), |left| Some(left.saturating_sub(ZEROS.len())));
    let frames = sizes
        .take_while(|left| *left > 0)
        .map(|left| Ok(Frame::data(Bytes::from_static(&ZEROS[..left.min(ZEROS.len())]))));
    StreamBody::new(tokio_stream::iter(frames)).boxed()
}

fn upgrade(request: Request<Incoming>) -> Answer {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let mut io = TokioIo::new(upgraded);
        let mut buffer = [0; 1_024];
        while let Ok(count) = io.read(&mut buffer).await {
            if count == 0 || io.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert("upgrade", HeaderValue::from_static("echo"));
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    answer
}

/// An application that reads a head and then says exactly these bytes, and no more.
pub struct Script {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    /// Connections that the other side ended.
    pub ended: Arc<AtomicUsize>,
    job: tokio::task::JoinHandle<()>,
}

impl Script {
    /// Answers every head with `bytes`; closes the connection after it if `close`.
    pub async fn start(bytes: &'static [u8], close: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::<AtomicUsize>::default();
        let ended = Arc::<AtomicUsize>::default();
        let job = tokio::spawn({
            let (connections, ended) = (Arc::clone(&connections), Arc::clone(&ended));
            async move {
                let mut open = tokio::task::JoinSet::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::Relaxed);
                    let ended = Arc::clone(&ended);
                    open.spawn(async move {
                        let mut head = Vec::new();
                        let mut buffer = [0; 4_096];
                        while let Ok(count) = stream.read(&mut buffer).await {
                            if count == 0 {
                                ended.fetch_add(1, Ordering::Relaxed);
                                return;
                            }
                            head.extend_from_slice(&buffer[..count]);
                            if head.windows(4).any(|four| four == b"\r\n\r\n") {
                                head.clear();
                                if stream.write_all(bytes).await.is_err() || close {
                                    return;
                                }
                            }
                        }
                    });
                }
            }
        });
        Self { address, connections, ended, job }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.job.abort();
    }
}

/// An address that refuses connections.
pub async fn refused() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address")
}
