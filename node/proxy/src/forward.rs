//! One request through the proxy: find its route, choose an upstream, pass it on.
//!
//! ```text
//! target ─► table (pinned) ─► headers ─► balance ─► pool or dial ─► exchange ─► headers ─► body
//!                 │                        ▲            │ nothing sent, or safe to repeat
//!                 ▼                        └────────────┘
//!              redirect
//! ```
//!
//! The arrow back is [`crate::attempt`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dovetail_routing::snapshot::Tls;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Uri, Version, request, response};
use hyper::body::Body as _;

use crate::attempt::{Answer, Attempts, Outgoing};
use crate::balance::Tried;
use crate::body::{BodyState, Gate, Received, RequestBody};
use crate::client_body::ClientBody;
use crate::conn::Downstream;
use crate::early::Listener;
use crate::forwarded::{self, Origin};
use crate::headers;
use crate::record::Record;
use crate::redirect::{self, Asked};
use crate::respond::ProxyError;
use crate::socket::UpstreamStream;
use crate::sticky;
use crate::table::{Lookup, Options, RouteEntry};
use crate::target;
use crate::upstream::Upstream;

/// Longest request target, in bytes.
const TARGET_BYTES_MAX: usize = 8 * 1_024;
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
    Streaming(Received, Duration),
    /// Both sides switch protocols: the upstream's stream, and what was read of it.
    Tunnel(UpstreamStream, Bytes, Duration),
}

/// Serves one request.
pub async fn forward(
    down: &Downstream,
    record: &mut Record,
    mut parts: request::Parts,
    incoming: ClientBody,
) -> Result<Answered, ProxyError> {
    if parts.method == Method::CONNECT {
        return Err(ProxyError::Connecting);
    }
    record.grpc = headers::is_grpc(&parts.headers);
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

    if !down.may_serve(&host) {
        return Err(ProxyError::Misdirected { host: host.into_owned() });
    }

    let table = down.worker.shared.table.pin().ok_or(ProxyError::NoTable)?;
    let revision = table.revision();
    record.begin(&table, &parts, down.tls.as_ref());
    let entry = match table.find(&host, target::path(&parts.uri)) {
        Lookup::Route(entry) => Arc::clone(entry),
        Lookup::UnknownPath => {
            return Err(ProxyError::UnknownPath { host: host.into_owned(), revision });
        }
        Lookup::UnknownHost => {
            return Err(ProxyError::NoRoute { host: host.into_owned(), revision });
        }
    };
    let options = &table.options;
    let origin = Origin::of(down, options, &parts.headers);
    record.client = origin.client;
    record.https = origin.https;
    record.request_id =
        Some(headers::request_id(&parts.headers).unwrap_or_else(headers::new_request_id));
    if entry.redirects {
        let (https, method, uri) = (origin.https, &parts.method, &parts.uri);
        let asked = Asked { https, authority, host: &host, method, uri };
        let https_port = options.published_ssl_port.unwrap_or(down.worker.shared.https_port);
        if let Some(elsewhere) = redirect::elsewhere(&entry, &asked, https_port) {
            record.entry = Some(entry);
            let mut head = elsewhere.response();
            tell_who_serves(down, record, options, &mut head.headers);
            return Ok(Answered { head, body: AnsweredBody::Empty });
        }
    }
    if entry.route.tls == Tls::Passthrough {
        // Its TLS is not ours to open, and over plain HTTP there is no such host.
        return Err(ProxyError::NoRoute { host: host.into_owned(), revision });
    }
    drop(host);
    record.entry = Some(Arc::clone(&entry));

    if let Some(limit) = options.body_bytes_max
        && incoming.size_hint().lower() > limit
    {
        return Err(ProxyError::BodyTooLarge { limit });
    }
    let upgrade = upgrade_asked(down, &parts);
    let user = sticky::user(&entry, options, &parts.headers, origin.client.ip());
    let large = incoming.size_hint().upper().is_none_or(|bytes| bytes > LARGE_BODY_BYTES);
    let gate = expects_continue(&parts).then(Arc::<Gate>::default);
    let state = Rc::<BodyState>::default();
    let client = Listener::of(down, &parts, &incoming);
    let body =
        RequestBody::new(incoming, options.body_bytes_max, &state, &down.wire, gate.as_ref());
    let asked = Rewrite { down, record, entry: &entry, options, origin: &origin };
    asked.apply(&mut parts, &body, upgrade.as_ref());

    let mut attempts = Attempts {
        worker: &down.worker,
        entry: &entry,
        options,
        user,
        client,
        grpc: record.grpc && upgrade.is_none(),
        outgoing: Outgoing::new(parts, body, gate),
        state,
        send_timeout: large.then_some(options.send_timeout),
        tried: Tried::default(),
    };
    let (position, answered) = attempts.run(record, revision).await?;
    let upstream = &entry.candidates[position].upstream;
    record.upstream_status = Some(answered.0.status.as_u16());
    record.until_head = Some(record.started.elapsed());
    answer(down, record, options, upstream, upgrade.is_some(), answered).await
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

/// Whether a client waits for the word that its body is wanted.
pub fn expects_continue(parts: &request::Parts) -> bool {
    let expected = parts.headers.get(EXPECT).map(HeaderValue::as_bytes);
    expected.is_some_and(|expected| expected.eq_ignore_ascii_case(b"100-continue"))
}

/// What decides how a request is passed on.
struct Rewrite<'r> {
    down: &'r Downstream,
    record: &'r Record,
    entry: &'r RouteEntry,
    options: &'r Options,
    origin: &'r Origin,
}

impl Rewrite<'_> {
    /// Makes of a client's request what the upstream is to see.
    fn apply(&self, parts: &mut request::Parts, body: &RequestBody, upgrade: Option<&HeaderValue>) {
        let Self { down, record, entry, options, origin } = *self;
        let request = &mut parts.headers;
        headers::strip_hop_by_hop(request);
        forwarded::strip(request, origin.trusted);
        if options.drop_underscored_headers {
            forwarded::strip_underscored(request);
        }
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
        if let Some(prefix) = &entry.prefix
            && let Some(target) = target::below(&entry.route.path, &parts.uri)
        {
            parts.uri = target.into();
            forwarded::tell_prefix(request, prefix);
        }
        forwarded::tell(request, down, origin, record.host.as_ref());
        if let Some(request_id) = &record.request_id {
            request.insert(headers::X_REQUEST_ID, request_id.clone());
        }
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
}

/// Says which proxy answered, unless that is to be hidden.
fn tell_who_serves(down: &Downstream, record: &Record, options: &Options, info: &mut HeaderMap) {
    if !options.hide_info_headers {
        let shared = &down.worker.shared;
        if let Some(request_id) = &record.request_id {
            info.insert(headers::X_REQUEST_ID, request_id.clone());
        }
        info.insert(headers::X_PROXY_ID, shared.proxy_id.clone());
        info.insert(headers::X_SERVER_INFO, shared.server_info.clone());
    }
}

/// Makes of an upstream's response what the client is to see.
async fn answer(
    down: &Downstream,
    record: &Record,
    options: &Options,
    upstream: &Upstream,
    upgrade: bool,
    (mut head, received): Answer,
) -> Result<Answered, ProxyError> {
    let address = upstream.address;
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
    tell_who_serves(down, record, options, &mut head.headers);
    if !options.hide_info_headers {
        let info = &mut head.headers;
        info.insert(headers::X_UPSTREAM_ADDR, upstream.header.clone());
        let elapsed = record.until_head.unwrap_or_default();
        info.insert(headers::X_UPSTREAM_RESPONSE_TIME, headers::seconds(elapsed));
    }
    let body = match received {
        Received::Http1(_, conn) if switching => {
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            if let Some(protocol) = protocol {
                head.headers.insert(UPGRADE, protocol);
            }
            let tunnel = conn.into_tunnel().await;
            let (stream, early) =
                tunnel.ok_or_else(|| invalid("it ended while switching protocols"))?;
            AnsweredBody::Tunnel(stream, early, options.read_timeout)
        }
        Received::Http2(_) if switching => {
            return Err(invalid("it switches protocols within HTTP/2"));
        }
        Received::Http1(incoming, conn) if incoming.is_end_stream() => {
            let mut conn = Some(conn);
            std::future::poll_fn(|cx| {
                if let Some(conn) = conn.take() {
                    down.worker.pool.put(conn, cx);
                }
                std::task::Poll::Ready(())
            })
            .await;
            AnsweredBody::Empty
        }
        Received::Http2(body) if body.is_end_stream() => AnsweredBody::Empty,
        received => AnsweredBody::Streaming(received, options.read_timeout),
    };
    Ok(Answered { head, body })
}
