//! What an upstream answers to one request.
//!
//! `/headers` is answered with the request as it arrived:
//!
//! ```json
//! {"instance": "web.1", "scheme": "http", "version": "HTTP/1.1", "method": "GET",
//!  "path": "/headers", "query": "a=b", "headers": {"host": ["a.example"]}, "body_bytes": 0}
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio_tungstenite::tungstenite::Message;

use super::{ANSWERED_BY, Seen, websocket};

/// The longest `/delay`.
const DELAY_MAX: Duration = Duration::from_secs(600);
/// Between two server-sent events.
const EVENT_EVERY: Duration = Duration::from_millis(20);
/// Messages of `/chat` that a slow listener may be behind.
const CHAT_MAX: usize = 256;

pub(super) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

fn as_json(value: &serde_json::Value) -> Response<Body> {
    let mut answer = Response::new(full(format!("{value}\n")));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// What answers, whichever connection a request comes by.
#[derive(Debug)]
pub(super) struct Answer {
    name: String,
    header: HeaderValue,
    metadata: Option<String>,
    scheme: &'static str,
    seen: Arc<Seen>,
    chat: broadcast::Sender<Message>,
    stopped: watch::Receiver<bool>,
}

impl Answer {
    pub(super) fn new(
        name: &str,
        metadata: Option<String>,
        scheme: &'static str,
        seen: Arc<Seen>,
        stopped: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let header = HeaderValue::from_str(name).map_err(|_| {
            let reason = format!("upstream name {name:?}: no header");
            io::Error::new(io::ErrorKind::InvalidInput, reason)
        })?;
        let (name, chat) = (name.to_owned(), broadcast::Sender::new(CHAT_MAX));
        Ok(Self { name, header, metadata, scheme, seen, chat, stopped })
    }

    pub(super) fn connected(&self) {
        self.seen.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) async fn to(&self, request: Request<Incoming>) -> Response<Body> {
        self.seen.requests.fetch_add(1, Ordering::Relaxed);
        *self.seen.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let mut answer = self.by_path(request).await;
        let told = self.seen.status.load(Ordering::Relaxed);
        if let Ok(told) = StatusCode::from_u16(told) {
            *answer.status_mut() = told;
        }
        answer.headers_mut().insert(ANSWERED_BY, self.header.clone());
        answer
    }

    async fn by_path(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let (stem, last) = path.rsplit_once('/').unwrap_or_default();
        match (stem.rsplit('/').next().unwrap_or_default(), last) {
            (_, "ping") => self.ping(&request),
            (_, "headers") => self.describe(request).await,
            (_, "echo") => Response::new(request.into_body().boxed_unsync()),
            (_, "ws") => {
                let greeting = (request.uri().query() == Some("headers"))
                    .then(|| Message::text(json!(headers(request.headers())).to_string()));
                let stopped = self.stopped.clone();
                websocket::switch(request, |socket| websocket::echo(socket, greeting, stopped))
            }
            (_, "chat") => {
                let (chat, stopped) = (self.chat.clone(), self.stopped.clone());
                websocket::switch(request, |socket| websocket::chat(socket, chat, stopped))
            }
            ("events", count) => events(count.parse().unwrap_or_default()),
            ("delay", ms) => {
                let delay = Duration::from_millis(ms.parse().unwrap_or_default());
                tokio::time::sleep(delay.min(DELAY_MAX)).await;
                self.named()
            }
            ("status", code) => {
                let mut answer = self.named();
                let status = code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
                *answer.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
                answer
            }
            _ => self.named(),
        }
    }

    fn named(&self) -> Response<Body> {
        Response::new(full(format!("{}\n", self.name)))
    }

    /// As the demo application of Interlock's documentation answers.
    fn ping(&self, request: &Request<Incoming>) -> Response<Body> {
        let text = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
        let mut answer = as_json(&json!({
            "instance": self.name,
            "version": "0.1",
            "metadata": self.metadata,
            "request_id": text("x-request-id"),
        }));
        let has_session = text(COOKIE.as_str()).is_some_and(|cookie| cookie.contains("session="));
        if !has_session {
            let cookie = format!("session={:016x}; Path=/", fastrand::u64(..));
            // Hexadecimal digits, so it is a header in any case.
            let cookie = HeaderValue::from_str(&cookie);
            answer.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
        }
        answer
    }

    /// The request as it arrived, in JSON.
    async fn describe(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body_bytes = body.collect().await.map_or(0, |body| body.to_bytes().len());
        as_json(&json!({
            "instance": self.name,
            "scheme": self.scheme,
            "version": format!("{:?}", head.version),
            "method": head.method.as_str(),
            "path": head.uri.path(),
            "query": head.uri.query(),
            "headers": headers(&head.headers),
            "body_bytes": body_bytes,
        }))
    }
}

/// All values by name.
fn headers(given: &HeaderMap) -> BTreeMap<&str, Vec<String>> {
    let mut headers = BTreeMap::<&str, Vec<String>>::new();
    for (name, value) in given {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_default().push(value);
    }
    headers
}

fn events(count: u64) -> Response<Body> {
    let events = futures_util::stream::unfold(0, move |sent| async move {
        if sent >= count {
            return None;
        }
        tokio::time::sleep(EVENT_EVERY).await;
        let event = Frame::data(Bytes::from(format!("data: {sent}\n\n")));
        Some((Ok::<_, Infallible>(event), sent + 1))
    });
    let body = StreamBody::new(events).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}
