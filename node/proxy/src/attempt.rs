//! The attempts of one request: which upstream is asked, and when another one is.
//!
//! A request is repeated only if nothing of it was sent, or if it is idempotent and
//! without a body and not one byte of a response came back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dovetail_routing::Revision;
use http::header::HOST;
use http::{Request, Response, StatusCode, request};
use hyper::body::Incoming;

use crate::balance::{ATTEMPTS_MAX, Tried};
use crate::body::{BodyFault, BodyState, Gate, RequestBody};
use crate::dial::{DialError, ExchangeError, UpstreamConn};
use crate::record::Record;
use crate::respond::ProxyError;
use crate::table::{Options, RouteEntry};
use crate::upstream::now_ms;
use crate::worker::Worker;

/// How long a connection may take while there are other upstreams to ask.
const CONNECT_TIMEOUT_WITH_OTHERS: Duration = Duration::from_secs(1);

/// A request that may have to be sent more than once.
#[derive(Debug)]
pub struct Outgoing {
    /// Present if it can be repeated although it was sent.
    copy: Option<request::Parts>,
    /// Present until it is sent.
    whole: Option<Request<RequestBody>>,
}

impl Outgoing {
    /// `gate` keeps the body back until the upstream says 100.
    pub fn new(parts: request::Parts, body: RequestBody, gate: Option<Arc<Gate>>) -> Self {
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
#[derive(Debug)]
pub struct Attempts<'r> {
    pub worker: &'r Worker,
    pub entry: &'r RouteEntry,
    pub options: &'r Options,
    /// Who is to stay on one upstream.
    pub user: Option<u64>,
    pub outgoing: Outgoing,
    pub state: Rc<BodyState>,
    /// Given for a large body.
    pub send_timeout: Option<Duration>,
    pub tried: Tried,
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

impl Attempts<'_> {
    /// Asks upstreams until one answers, or no other may be asked.
    pub async fn run(
        &mut self,
        record: &mut Record,
        revision: Revision,
    ) -> Result<(Response<Incoming>, Box<UpstreamConn>), ProxyError> {
        let worker = self.worker;
        let mut last = None;
        // Set to ask the same upstream again over a new connection.
        let mut again = None;
        loop {
            let (position, fresh) = match again.take() {
                Some(position) => (position, true),
                None => {
                    let exhausted = self.tried.count() >= ATTEMPTS_MAX;
                    let pick = self.entry.pick(worker.thread, self.user, &self.tried, now_ms());
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
    ) -> Result<(Response<Incoming>, Box<UpstreamConn>), Failed> {
        let worker = self.worker;
        let upstream = &self.entry.candidates[position].upstream;
        let address = upstream.address;
        if !fresh && self.outgoing.copy.is_none() {
            // Lets the runtime hear from the kernel first: a pooled connection that the
            // upstream just closed would cost a request that cannot be repeated.
            tokio::task::yield_now().await;
        }
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
                    self.note_failure(position, matches!(error, DialError::Timeout(_)));
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
                if response.status().is_server_error() && self.entry.dial(position).fail_on_5xx {
                    self.note_failure(position, false);
                } else {
                    upstream.succeeded();
                }
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
                self.note_failure(position, false);
                Err(Failed::Next(error))
            }
            ExchangeError::Died(error) => {
                if let Some(fault) = self.state.fault() {
                    return Err(Failed::Final(match fault {
                        BodyFault::TooLarge { limit } => ProxyError::BodyTooLarge { limit },
                        BodyFault::Violation(violation) => ProxyError::Framing(violation),
                        BodyFault::ClientGone => ProxyError::ClientGone,
                        BodyFault::TooSlow => ProxyError::BodyTimeout,
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
                // A pooled connection that had died says nothing about the upstream.
                if !stale || cut_off {
                    self.note_failure(position, cut_off);
                }
                Err(if self.outgoing.is_at_hand() {
                    Failed::Next(error)
                } else {
                    Failed::Final(error)
                })
            }
            ExchangeError::Timeout => {
                self.note_failure(position, true);
                Err(Failed::Final(ProxyError::ResponseTimeout { address, after }))
            }
        }
    }

    /// Counts a failure; connections to an upstream that fell silent are worth nothing.
    fn note_failure(&self, position: usize, silent: bool) {
        let worker = self.worker;
        let upstream = &self.entry.candidates[position].upstream;
        if upstream.failed(now_ms(), self.entry.dial(position)) {
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
