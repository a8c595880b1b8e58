//! One request through the proxy: find its route, choose an upstream, pass it on.
//!
//! ```text
//! target ─► table (pinned) ─► headers ─► balance ─► pool or dial ─► exchange ─► headers ─► body
//!                                          ▲            │ nothing sent, or safe to repeat
//!                                          └────────────┘
//! ```
//!
//! A request is repeated on another upstream only if nothing of it was sent, or if
//! it is idempotent and without a body and not one byte of a response came back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, StatusCode, Uri, Version, request, response};
use hyper::body::{Body as _, Incoming};
use tokio::net::TcpStream;

use crate::balance::{ATTEMPTS_MAX, Tried};
use crate::body::{BodyFault, BodyState, Gate, RequestBody};
use crate::conn::Downstream;
use crate::dial::{DialError, ExchangeError, UpstreamConn};
use crate::headers::{self, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REAL_IP};
use crate::record::Record;
use crate::respond::ProxyError;
use crate::table::{Lookup, Options, RouteEntry};
use crate::target;
use crate::upstream::{Upstream, now_ms};

/// Longest request target, in bytes.
const TARGET_BYTES_MAX: usize = 8 * 1_024;
/// How long a connection may take while there are other upstreams to ask.
const CONNECT_TIMEOUT_WITH_OTHERS: Duration = Duration::from_secs(1);
/// Size of a body from which an upstream may need time to take it.
const LARGE_BODY_BYTES: u64 = 64 * 1_024;

/// What a request led to.
#[derive(Debug)]
pub struct Answered {
    pub head: response::Parts,
    pub body: AnsweredBody,
}

/// Where the body of an answer comes from.
#[derive(Debug)]
pub enum AnsweredBody {
    Empty,
    Streaming(Incoming, Box<UpstreamConn>, Duration),
    /// Both sides switch protocols: the upstream's socket, and what was read of it.
    Tunnel(TcpStream, Bytes, Duration),
}

/// Serves one request.
pub async fn forward(
    down: &Downstream,
    record: &mut Record,
    mut parts: request::Parts,
    incoming: Incoming,
) -> Result<Answered, ProxyError> {
    if parts.method == Method::CONNECT {
        return Err(ProxyError::Connecting);
    }
    let target_bytes = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target_bytes > TARGET_BYTES_MAX {
        return Err(ProxyError::TargetTooLong { limit: TARGET_BYTES_MAX });
    }
    record.host = parts.headers.get(HOST).cloned();
    let authority =
        target::authority(&parts.uri, parts.version, &parts.headers).map_err(ProxyError::Host)?;
    if parts.uri.authority().is_some() {
        record.host = authority.and_then(|authority| HeaderValue::from_str(authority).ok());
    }
    let host = match authority {
        Some(authority) => target::host_name(authority).map_err(ProxyError::Host)?,
        None => "".into(),
    };

    let table = down.worker.shared.table.pin().ok_or(ProxyError::NoTable)?;
    let revision = table.revision();
    record.table = Some(Arc::clone(&table));
    let entry = match table.find(&host, target::path(&parts.uri)) {
        Lookup::Route(entry) => Arc::clone(entry),
        Lookup::UnknownPath => {
            return Err(ProxyError::UnknownPath { host: host.into_owned(), revision });
        }
        Lookup::UnknownHost => {
            return Err(ProxyError::NoRoute { host: host.into_owned(), revision });
        }
    };
    drop(host);
    record.entry = Some(Arc::clone(&entry));

    let options = &table.options;
    if let Some(limit) = options.body_bytes_max
        && incoming.size_hint().lower() > limit
    {
        return Err(ProxyError::BodyTooLarge { limit });
    }
    let upgrade = upgrade_asked(down, &parts);
    let request_id = headers::request_id(&parts.headers).unwrap_or_else(headers::new_request_id);
    record.request_id = Some(request_id.clone());
    let large = incoming.size_hint().upper().is_none_or(|bytes| bytes > LARGE_BODY_BYTES);
    let gate = expects_continue(&parts).then(Arc::<Gate>::default);
    let state = Rc::<BodyState>::default();
    let body =
        RequestBody::new(incoming, options.body_bytes_max, &state, &down.wire, gate.as_ref());
    rewrite(&mut parts, down, record, &request_id, &body, upgrade.as_ref());

    let mut exchange = Exchange {
        down,
        entry: &entry,
        options,
        outgoing: Outgoing::new(parts, body, gate),
        state,
        send_timeout: large.then_some(options.send_timeout),
        tried: Tried::default(),
    };
    let (response, conn) = exchange.run(record, revision).await?;
    answer(down, record, options, &request_id, upgrade.is_some(), response, conn).await
}

/// The protocol that the client wants to switch to, if nothing stands in the way.
fn upgrade_asked(down: &Downstream, parts: &request::Parts) -> Option<HeaderValue> {
    let named = |value: &HeaderValue| {
        let mut tokens = value.as_bytes().split(|&byte| byte == b',');
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    if !down.wire.upgrade_is_asked() || !parts.headers.get_all(CONNECTION).iter().any(named) {
        return None;
    }
    parts.headers.get(UPGRADE).cloned()
}

fn expects_continue(parts: &request::Parts) -> bool {
    let expected = parts.headers.get(EXPECT).map(HeaderValue::as_bytes);
    expected.is_some_and(|expected| expected.eq_ignore_ascii_case(b"100-continue"))
}

/// Makes of a client's request what the upstream is to see.
fn rewrite(
    parts: &mut request::Parts,
    down: &Downstream,
    record: &Record,
    request_id: &HeaderValue,
    body: &RequestBody,
    upgrade: Option<&HeaderValue>,
) {
    let request = &mut parts.headers;
    headers::strip_hop_by_hop(request);
    headers::strip_forwarded(request);
    if parts.version == Version::HTTP_2 {
        headers::join_cookies(request);
    }
    if parts.uri.authority().is_some() {
        // Absolute-form and HTTP/2: the authority is the host (RFC 9112 §3.2.2).
        if let Some(host) = &record.host {
            request.insert(HOST, host.clone());
        }
        let target = parts.uri.path_and_query().cloned();
        parts.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    request.insert(X_FORWARDED_FOR, down.client_ip.clone());
    request.insert(X_REAL_IP, down.client_ip.clone());
    request.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    match &record.host {
        Some(host) => request.insert(X_FORWARDED_HOST, host.clone()),
        None => request.remove(X_FORWARDED_HOST),
    };
    request.insert(headers::X_REQUEST_ID, request_id.clone());
    if !body.is_empty() && !request.contains_key(CONTENT_LENGTH) {
        // Said aloud, since hyper assumes no body for GET and HEAD otherwise.
        request.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(protocol) = upgrade {
        request.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        request.insert(UPGRADE, protocol.clone());
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
}

/// A request that may have to be sent more than once.
struct Outgoing {
    /// Present if it can be repeated although it was sent.
    copy: Option<request::Parts>,
    /// Present until it is sent.
    whole: Option<Request<RequestBody>>,
}

impl Outgoing {
    fn new(parts: request::Parts, body: RequestBody, gate: Option<Arc<Gate>>) -> Self {
        if body.is_empty() && parts.method.is_idempotent() {
            return Self { copy: Some(parts), whole: None };
        }
        let mut request = Request::from_parts(parts, body);
        if let Some(gate) = gate {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        Self { copy: None, whole: Some(request) }
    }

    fn take(&mut self) -> Option<Request<RequestBody>> {
        match &self.copy {
            Some(parts) => Some(Request::from_parts(parts.clone(), RequestBody::Empty)),
            None => self.whole.take(),
        }
    }

    fn put_back(&mut self, request: Request<RequestBody>) {
        if self.copy.is_none() {
            self.whole = Some(request);
        }
    }

    /// Whether it can be sent (again).
    fn is_at_hand(&self) -> bool {
        self.copy.is_some() || self.whole.is_some()
    }
}

/// The attempts of one request.
struct Exchange<'r> {
    down: &'r Downstream,
    entry: &'r RouteEntry,
    options: &'r Options,
    outgoing: Outgoing,
    state: Rc<BodyState>,
    send_timeout: Option<Duration>,
    tried: Tried,
}

/// How an attempt failed.
enum Failed {
    /// Nothing was sent, or it can be repeated.
    Next(ProxyError),
    /// A pooled connection had died in the meantime: the upstream itself was not asked.
    Stale(ProxyError),
    /// No other attempt may be made.
    Final(ProxyError),
}

impl Exchange<'_> {
    async fn run(
        &mut self,
        record: &mut Record,
        revision: dovetail_routing::Revision,
    ) -> Result<(http::Response<Incoming>, Box<UpstreamConn>), ProxyError> {
        let worker = &self.down.worker;
        let mut last = None;
        // Set to ask the same upstream again over a new connection.
        let mut again = None;
        loop {
            let (position, fresh) = match again.take() {
                Some(position) => (position, true),
                None => {
                    let exhausted = self.tried.count() >= ATTEMPTS_MAX;
                    let pick = self.entry.pick(worker.thread, &self.tried, now_ms());
                    let Some(position) = pick.filter(|_| !exhausted) else {
                        return Err(last.unwrap_or(ProxyError::NoUpstream { revision }));
                    };
                    self.tried.push(position);
                    (position, false)
                }
            };
            record.candidate = Some(position);
            record.attempts += 1;
            if record.attempts > 1 {
                worker.telemetry.retried();
            }
            match self.attempt(position, fresh).await {
                Ok(answered) => return Ok(answered),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Stale(error)) => {
                    again = Some(position);
                    last = Some(error);
                }
                Err(Failed::Next(error)) => last = Some(error),
            }
        }
    }

    async fn attempt(
        &mut self,
        position: usize,
        fresh: bool,
    ) -> Result<(http::Response<Incoming>, Box<UpstreamConn>), Failed> {
        let worker = &self.down.worker;
        let upstream = &self.entry.candidates[position].upstream;
        let address = upstream.address;
        let pooled = if fresh {
            None
        } else {
            let take = |cx: &mut std::task::Context<'_>| worker.pool.take(upstream.id, cx);
            std::future::poll_fn(|cx| std::task::Poll::Ready(take(cx))).await
        };
        let mut conn = match pooled {
            Some(conn) => conn,
            None => {
                let others = self.entry.candidates.len() > self.tried.count();
                let mut timeout = self.options.connect_timeout;
                if others {
                    timeout = timeout.min(CONNECT_TIMEOUT_WITH_OTHERS);
                }
                UpstreamConn::dial(upstream, timeout).await.map_err(|error| {
                    self.note_failure(upstream, matches!(error, DialError::Timeout(_)));
                    Failed::Next(match error {
                        DialError::Timeout(_) => ProxyError::ConnectTimeout { address, error },
                        DialError::Connect(_) => ProxyError::Connect { address, error },
                    })
                })?
            }
        };
        let Some(mut request) = self.outgoing.take() else {
            return Err(Failed::Final(ProxyError::ClientGone));
        };
        if !request.headers().contains_key(HOST) {
            // HTTP/1.0 without a Host, and HTTP/1.1 needs one.
            request.headers_mut().insert(HOST, upstream.header.clone());
        }
        let after = self.options.read_timeout;
        let failure = match conn.exchange(request, after, self.send_timeout).await {
            Ok(response) => {
                upstream.succeeded();
                return Ok((response, conn));
            }
            Err(failure) => failure,
        };
        let stale = conn.reused;
        match failure {
            ExchangeError::Unsent(request, error) => {
                self.outgoing.put_back(*request);
                let error = ProxyError::UpstreamClosed { address, error };
                if stale {
                    return Err(Failed::Stale(error));
                }
                self.note_failure(upstream, false);
                Err(Failed::Next(error))
            }
            ExchangeError::Died(error) => {
                if let Some(fault) = self.state.fault() {
                    return Err(Failed::Final(match fault {
                        BodyFault::TooLarge { limit } => ProxyError::BodyTooLarge { limit },
                        BodyFault::Violation(violation) => ProxyError::Framing(violation),
                        BodyFault::ClientGone => ProxyError::ClientGone,
                    }));
                }
                if error.is_parse() {
                    let reason = dovetail_process::chain(&error);
                    return Err(Failed::Final(ProxyError::InvalidResponse { address, reason }));
                }
                let cut_off = is_timed_out(&error);
                let error = ProxyError::UpstreamClosed { address, error };
                if stale && !cut_off && self.outgoing.is_at_hand() {
                    return Err(Failed::Stale(error));
                }
                self.note_failure(upstream, cut_off);
                Err(if self.outgoing.is_at_hand() {
                    Failed::Next(error)
                } else {
                    Failed::Final(error)
                })
            }
            ExchangeError::Timeout => {
                self.note_failure(upstream, true);
                Err(Failed::Final(ProxyError::ResponseTimeout { address, after }))
            }
        }
    }

    /// Counts a failure; connections to an upstream that fell silent are worth nothing.
    fn note_failure(&self, upstream: &Upstream, silent: bool) {
        let worker = &self.down.worker;
        if upstream.failed(now_ms()) {
            worker.telemetry.upstream_out();
        }
        if silent {
            worker.pool.evict(upstream.id);
        }
    }
}

/// Whether the kernel gave up on the connection: nothing came back for a while.
fn is_timed_out(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
            return matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable);
        }
        cause = error.source();
    }
    false
}

/// Makes of an upstream's response what the client is to see.
async fn answer(
    down: &Downstream,
    record: &Record,
    options: &Options,
    request_id: &HeaderValue,
    upgrade: bool,
    response: http::Response<Incoming>,
    conn: Box<UpstreamConn>,
) -> Result<Answered, ProxyError> {
    let (mut head, incoming) = response.into_parts();
    let address = conn.upstream.address;
    let invalid = |reason: &str| ProxyError::InvalidResponse { address, reason: reason.to_owned() };
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if switching && !upgrade {
        return Err(invalid("it switches protocols unasked"));
    }
    if let Some(coding) = head.headers.get(TRANSFER_ENCODING) {
        let once = head.headers.get_all(TRANSFER_ENCODING).iter().nth(1).is_none();
        if !once || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(invalid("its transfer encoding is not exactly chunked"));
        }
        // hyper goes by the transfer encoding; so must the client.
        head.headers.remove(CONTENT_LENGTH);
    }
    let protocol = head.headers.get(UPGRADE).cloned();
    headers::strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    if !options.hide_info_headers {
        let info = &mut head.headers;
        let shared = &down.worker.shared;
        info.insert(headers::X_REQUEST_ID, request_id.clone());
        info.insert(headers::X_PROXY_ID, shared.proxy_id.clone());
        info.insert(headers::X_SERVER_INFO, shared.server_info.clone());
        info.insert(headers::X_UPSTREAM_ADDR, conn.upstream.header.clone());
        let elapsed = Instant::now().saturating_duration_since(record.started);
        info.insert(headers::X_UPSTREAM_RESPONSE_TIME, headers::seconds(elapsed));
    }
    let body = if switching {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            head.headers.insert(UPGRADE, protocol);
        }
        let tunnel = conn.into_tunnel().await;
        let (stream, early) =
            tunnel.ok_or_else(|| invalid("it ended while switching protocols"))?;
        AnsweredBody::Tunnel(stream, early, options.read_timeout)
    } else if incoming.is_end_stream() {
        let mut conn = Some(conn);
        std::future::poll_fn(|cx| {
            if let Some(conn) = conn.take() {
                down.worker.pool.put(conn, cx);
            }
            std::task::Poll::Ready(())
        })
        .await;
        AnsweredBody::Empty
    } else {
        AnsweredBody::Streaming(incoming, conn, options.read_timeout)
    };
    Ok(Answered { head, body })
}
