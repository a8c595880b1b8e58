//! The attempts of one request: which upstream is asked, and when another one is.
//!
//! A request is repeated only if nothing of it was sent, or if it is idempotent and
//! without a body and not one byte of a response came back; and only as often as
//! [`crate::budget`] allows.

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use dovetail_routing::Revision;
use dovetail_routing::snapshot::UpstreamProtocol;
use http::header::HOST;
use http::{Request, StatusCode, request, response};

use crate::balance::{ATTEMPTS_MAX, Tried};
use crate::body::{BodyFault, BodyState, Gate, Received, RequestBody};
use crate::dial::{DialError, ExchangeError, UpstreamConn};
use crate::early::Listener;
use crate::http2::{Exchange, Failure};
use crate::record::Record;
use crate::respond::ProxyError;
use crate::table::{Options, RouteEntry};
use crate::target::InvalidHost;
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
    gate: Option<Arc<Gate>>,
}

impl Outgoing {
    /// `gate` keeps the body back until the upstream says 100.
    pub fn new(parts: request::Parts, body: RequestBody, gate: Option<Arc<Gate>>) -> Self {
        if body.is_empty() && parts.method.is_idempotent() {
            return Self { copy: Some(parts), whole: None, gate: None };
        }
        let mut request = Request::from_parts(parts, body);
        if let Some(gate) = gate.clone() {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        Self { copy: None, whole: Some(request), gate }
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
    /// Whether it is gRPC, which needs HTTP/2.
    pub grpc: bool,
    /// The client, if it may hear of interim answers.
    pub client: Option<Listener>,
    pub outgoing: Outgoing,
    pub state: Rc<BodyState>,
    /// Given for a large body.
    pub send_timeout: Option<Duration>,
    pub tried: Tried,
}

/// How an attempt failed.
enum Failed {
    /// It was sent or waited for, and can be repeated.
    Next(ProxyError),
    /// The upstream took no connection: nobody was asked yet.
    Refused(ProxyError),
    /// A pooled connection had died in the meantime: the upstream itself was not asked.
    Stale(ProxyError),
    /// No other attempt may be made.
    Final(ProxyError),
}

/// What an upstream answered.
pub type Answer = (response::Parts, Received);

impl Attempts<'_> {
    /// Asks upstreams until one answers, or no other may be asked. Gives its position.
    pub async fn run(
        &mut self,
        record: &mut Record,
        revision: Revision,
    ) -> Result<(usize, Answer), ProxyError> {
        let worker = self.worker;
        let mut last = None;
        // Set to ask the same upstream again over a new connection.
        let mut again = None;
        let mut now = now_ms();
        worker.budget.request(now);
        loop {
            let (position, fresh) = match again.take() {
                Some(position) => (position, true),
                None => {
                    let exhausted = self.tried.count() >= ATTEMPTS_MAX;
                    let pick = self.entry.pick(worker.thread, self.user, &self.tried, now);
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
            if !fresh && self.outgoing.copy.is_none() {
                // Lets the runtime hear from the kernel first: a pooled connection that the
                // upstream just closed would cost a request that cannot be repeated.
                tokio::task::yield_now().await;
            }
            let begun = self.entry.counters(position).map(|_| Instant::now());
            let attempted = match self.is_http2(position) {
                // Boxed: the futures of plain requests stay small.
                true => Box::pin(self.http2(position, fresh)).await,
                false => self.http1(position, fresh).await,
            };
            if let Some((counters, begun)) = self.entry.counters(position).zip(begun)
                && let Some(failed) = verdict(&attempted)
            {
                counters.attempted(begun.elapsed(), failed);
            }
            match attempted {
                Ok(answer) => {
                    self.note_status(position, answer.0.status);
                    return Ok((position, answer));
                }
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Stale(error)) => {
                    again = Some(position);
                    last = Some(error);
                }
                Err(Failed::Refused(error)) => last = Some(error),
                Err(Failed::Next(error)) => {
                    let others = self.entry.candidates.len() > self.tried.count();
                    if others && !worker.budget.repeat(now_ms()) {
                        worker.telemetry.not_retried();
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
            now = now_ms();
        }
    }

    /// Whether HTTP/2 is spoken to an upstream: its service says so, or else the
    /// configuration, or it is gRPC.
    fn is_http2(&self, position: usize) -> bool {
        let asked = match self.entry.dial(position).protocol {
            UpstreamProtocol::Auto => self.options.http_version,
            other => other,
        };
        match asked {
            UpstreamProtocol::Auto => self.grpc,
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
        }
    }

    async fn http1(&mut self, position: usize, fresh: bool) -> Result<Answer, Failed> {
        let (worker, entry) = (self.worker, self.entry);
        let address = entry.candidates[position].upstream.address;
        let pooled = if fresh {
            None
        } else {
            let key = entry.key(position);
            std::future::poll_fn(|cx| Poll::Ready(worker.pool.take(key, cx))).await
        };
        let mut conn = match pooled {
            Some(conn) => conn,
            None => {
                let destination = entry.destination(position);
                let dial = UpstreamConn::dial(&destination, self.connect_timeout());
                let dialled = Box::pin(dial).await;
                dialled.map_err(|error| self.not_connected(position, error))?
            }
        };
        let request = self.take(position)?;
        let (after, send) = (self.options.read_timeout, self.send_timeout);
        let exchanged =
            conn.exchange(request, &self.state, self.client.as_ref(), after, send).await;
        let failure = match exchanged {
            Ok(response) => {
                let (head, incoming) = response.into_parts();
                return Ok((head, Received::Http1(incoming, conn)));
            }
            Err(failure) => failure,
        };
        let stale = conn.reused;
        match failure {
            ExchangeError::Unsent(request, error) => {
                self.outgoing.put_back(*request);
                let error = ProxyError::UpstreamClosed { address, error: error.into() };
                if stale {
                    return Err(Failed::Stale(error));
                }
                self.note_failure(position, false);
                Err(Failed::Next(error))
            }
            ExchangeError::Died(error) if error.is_parse() && self.state.fault().is_none() => {
                let reason = dovetail_process::chain(&error);
                Err(Failed::Final(ProxyError::InvalidResponse { address, reason }))
            }
            ExchangeError::Died(error) if conn.was_answered() && self.state.fault().is_none() => {
                // Whoever begins to answer has taken the request.
                self.note_failure(position, false);
                let error = ProxyError::UpstreamClosed { address, error: error.into() };
                Err(Failed::Final(error))
            }
            ExchangeError::Died(error) => Err(self.died(position, stale, error)),
            ExchangeError::Timeout => Err(self.timed_out(position)),
        }
    }

    async fn http2(&mut self, position: usize, fresh: bool) -> Result<Answer, Failed> {
        let destination = self.entry.destination(position);
        let address = destination.upstream.address;
        let leased = self.worker.http2.lease(&destination, self.connect_timeout()).await;
        let lease = leased.map_err(|error| self.not_connected(position, error))?;
        let stale = lease.reused() && !fresh;
        let request = self.take(position)?;
        let exchange = Exchange {
            https: destination.tls.is_some(),
            gate: self.outgoing.gate.as_deref(),
            client: self.client.as_ref(),
            state: &self.state,
            response_timeout: self.options.read_timeout,
        };
        match exchange.run(lease, request).await {
            Ok((head, body)) => Ok((head, Received::Http2(Box::new(body)))),
            Err(Failure::Refused(error)) => {
                let error = ProxyError::UpstreamClosed { address, error: error.into() };
                Err(if self.outgoing.is_at_hand() {
                    Failed::Next(error)
                } else {
                    Failed::Final(error)
                })
            }
            Err(Failure::Died(error)) if error.is_reset() && self.state.fault().is_none() => {
                // The application's word, as a status is.
                let error = ProxyError::UpstreamClosed { address, error: error.into() };
                Err(Failed::Final(error))
            }
            Err(Failure::Died(error)) => Err(self.died(position, stale, error)),
            Err(Failure::Timeout) => Err(self.timed_out(position)),
            Err(Failure::Authority) => Err(Failed::Final(ProxyError::Host(InvalidHost::Malformed))),
        }
    }

    /// The request, for this upstream.
    fn take(&mut self, position: usize) -> Result<Request<RequestBody>, Failed> {
        let mut request = self.outgoing.take().ok_or(Failed::Final(ProxyError::ClientGone))?;
        if !request.headers().contains_key(HOST) {
            // HTTP/1.0 without a Host, and later versions need one.
            let upstream = &self.entry.candidates[position].upstream;
            request.headers_mut().insert(HOST, upstream.header.clone());
        }
        Ok(request)
    }

    fn connect_timeout(&self) -> Duration {
        let timeout = self.options.connect_timeout;
        match self.entry.candidates.len() > self.tried.count() {
            true => timeout.min(CONNECT_TIMEOUT_WITH_OTHERS),
            false => timeout,
        }
    }

    /// No connection came to be: nothing was sent.
    fn not_connected(&self, position: usize, error: DialError) -> Failed {
        let address = self.entry.candidates[position].upstream.address;
        self.note_failure(position, matches!(error, DialError::Timeout(_)));
        match error {
            DialError::Timeout(_) => Failed::Next(ProxyError::ConnectTimeout { address, error }),
            DialError::Connect(_) => Failed::Refused(ProxyError::Connect { address, error }),
            DialError::Tls(_) => Failed::Next(ProxyError::UpstreamTls { address, error }),
            DialError::Http2(_) => {
                let reason = dovetail_process::chain(&error);
                Failed::Next(ProxyError::InvalidResponse { address, reason })
            }
        }
    }

    /// The connection ended after the request began to be sent.
    fn died(
        &self,
        position: usize,
        stale: bool,
        error: impl Error + Send + Sync + 'static,
    ) -> Failed {
        if let Some(fault) = self.state.fault() {
            return Failed::Final(match fault {
                BodyFault::TooLarge { limit } => ProxyError::BodyTooLarge { limit },
                BodyFault::Violation(violation) => ProxyError::Framing(violation),
                BodyFault::ClientGone => ProxyError::ClientGone,
                BodyFault::TooSlow => ProxyError::BodyTimeout,
            });
        }
        let cut_off = is_timed_out(&error);
        let address = self.entry.candidates[position].upstream.address;
        let error = ProxyError::UpstreamClosed { address, error: error.into() };
        let at_hand = self.outgoing.is_at_hand();
        if stale && !cut_off && at_hand {
            return Failed::Stale(error);
        }
        // A pooled connection that had died says nothing about the upstream.
        if !stale || cut_off {
            self.note_failure(position, cut_off);
        }
        if at_hand { Failed::Next(error) } else { Failed::Final(error) }
    }

    fn timed_out(&self, position: usize) -> Failed {
        self.note_failure(position, true);
        let address = self.entry.candidates[position].upstream.address;
        Failed::Final(ProxyError::ResponseTimeout { address, after: self.options.read_timeout })
    }

    fn note_status(&self, position: usize, status: StatusCode) {
        if status.is_server_error() && self.entry.dial(position).fail_on_5xx {
            self.note_failure(position, false);
        } else {
            self.entry.candidates[position].upstream.succeeded();
        }
    }

    fn note_failure(&self, position: usize, silent: bool) {
        self.entry.note_failure(position, self.worker, silent);
    }
}

/// Whether an attempt failed its service; `None` where it says nothing of the service.
fn verdict(attempted: &Result<Answer, Failed>) -> Option<bool> {
    match attempted {
        Ok((head, _)) => Some(head.status.is_server_error()),
        Err(Failed::Stale(_)) => None,
        Err(Failed::Next(error) | Failed::Refused(error) | Failed::Final(error)) => {
            error.is_upstreams().then_some(true)
        }
    }
}

/// Whether the kernel gave up on the connection: nothing came back for a while.
fn is_timed_out(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let h2 = error.downcast_ref::<h2::Error>().and_then(h2::Error::get_io);
        if let Some(kind) = io.or(h2.map(std::io::Error::kind)) {
            use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
            return matches!(kind, TimedOut | HostUnreachable | NetworkUnreachable);
        }
        cause = error.source();
    }
    false
}
