//! One connection to an upstream, driven by whoever uses it.
//!
//! hyper splits a client connection into a sender and a future that does the work.
//! Here both stay together, and the request that uses the connection drives it: no
//! second task, no wake-up across tasks, and a request that is dropped closes its
//! connection.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::{BodyState, RequestBody};
use crate::early::{Ear, Listener};
use crate::socket::{USER_TIMEOUT, UpstreamStream};
use crate::upstream::Upstream;
use crate::upstream_tls::Terms;

/// How much of an upstream's response may wait in memory for a slow client.
const BUFFER_BYTES_MAX: usize = 256 * 1_024;
/// Longest head of a response, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1_024;

type Driver = http1::Connection<TokioIo<UpstreamStream>, RequestBody>;

/// Why no connection came to be. Cheap to clone: many may wait for one connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    #[error("connect to upstream")]
    Connect(#[source] Arc<io::Error>),
    #[error("TLS: {0}")]
    Tls(Arc<str>),
    #[error("it does not speak HTTP/2")]
    Http2(#[source] Arc<h2::Error>),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Where a connection leads: an upstream, and the terms under which it is secure.
#[derive(Clone, Debug)]
pub struct Destination {
    pub upstream: Arc<Upstream>,
    pub tls: Option<Arc<Terms>>,
}

/// What tells connections apart: one is used again only for the same upstream under the same terms.
pub type Key = (u64, u64);

impl Destination {
    /// What tells its connections from others.
    pub fn key(&self) -> Key {
        (self.upstream.id, self.tls.as_ref().map_or(0, |terms| terms.id()))
    }

    /// Connects, TLS included. `http2` is what is asked for in its handshake.
    pub async fn connect(&self, http2: bool) -> Result<UpstreamStream, DialError> {
        let failed = |error| DialError::Connect(Arc::new(error));
        let tcp = TcpStream::connect(self.upstream.address).await.map_err(failed)?;
        let stream = UpstreamStream::plain(tcp).map_err(failed)?;
        match &self.tls {
            None => Ok(stream),
            Some(terms) => stream.secured(async |tcp| terms.secure(tcp, http2).await).await,
        }
    }
}

/// Why no response came.
#[derive(Debug)]
pub enum ExchangeError {
    /// Nothing of the request was sent: it may go anywhere else.
    Unsent(Box<Request<RequestBody>>, hyper::Error),
    /// The connection ended after the request began to be sent.
    Died(hyper::Error),
    /// No response head came in time.
    Timeout,
}

/// A connection to an upstream.
pub struct UpstreamConn {
    sender: http1::SendRequest<RequestBody>,
    /// Absent once it has ended.
    driver: Option<Driver>,
    /// It ended well, by an upgrade or a close: what is left of it.
    ended: Option<Driver>,
    pub destination: Destination,
    key: Key,
    /// It has carried a request before.
    pub reused: bool,
    pub idle_since: Instant,
    user_timeout: Rc<Cell<Duration>>,
    ear: Rc<Ear>,
    timer: LazyTimer,
}

impl fmt::Debug for UpstreamConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamConn({:?})", self.destination.upstream)
    }
}

impl UpstreamConn {
    /// Connects within `timeout`.
    pub async fn dial(
        destination: &Destination,
        timeout: Duration,
    ) -> Result<Box<Self>, DialError> {
        // Before the handshake: should the terms change meanwhile, it is not used again.
        let key = destination.key();
        let connect = destination.connect(false);
        let connected = tokio::time::timeout(timeout, connect).await;
        let stream = connected.map_err(|_| DialError::Timeout(timeout))??;
        let (user_timeout, ear) = (stream.user_timeout(), stream.ear());
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| DialError::Connect(Arc::new(io::Error::other(error))))?;
        Ok(Box::new(Self {
            sender,
            driver: Some(driver),
            ended: None,
            destination: destination.clone(),
            key,
            reused: false,
            idle_since: Instant::now(),
            user_timeout,
            ear,
            timer: LazyTimer::default(),
        }))
    }

    /// What tells it from connections to other places.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Whether it is worth keeping when it is idle: its upstream takes new requests, and
    /// its terms are those in force.
    pub fn is_kept(&self) -> bool {
        self.destination.upstream.is_kept() && self.destination.key() == self.key
    }

    /// Lets the connection do what it can.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(driver) = &mut self.driver else { return };
        if let Poll::Ready(ended) = Pin::new(driver).poll(cx) {
            // What went wrong reaches the caller through the response or its body.
            let driver = self.driver.take();
            if ended.is_ok() {
                self.ended = driver;
            }
        }
    }

    /// Whether it can carry another request: it lives, and nothing is under way on it.
    pub fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Sends `request` and waits for the head of the response, as long as `state` says
    /// that its body comes along, and `response_timeout` more.
    ///
    /// `client` hears of interim answers. `send_timeout` is given for a request with a large
    /// body: a peer that takes no bytes for a while is then merely slow.
    pub async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        state: &BodyState,
        client: Option<&Listener>,
        response_timeout: Duration,
        send_timeout: Option<Duration>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        // The kernel's user timeout also ends connections whose peer has no room
        // for more, which is no fault while it works on a large body.
        self.user_timeout.set(send_timeout.unwrap_or(USER_TIMEOUT).max(USER_TIMEOUT));
        self.ear.listen(client);
        let mut answer = pin!(self.sender.try_send_request(request));
        let start = Instant::now();
        let exchanged = std::future::poll_fn(|cx| {
            self.drive(cx);
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(|mut error| match error.take_message() {
                    Some(request) => ExchangeError::Unsent(Box::new(request), error.into_error()),
                    None => ExchangeError::Died(error.into_error()),
                }));
            }
            if self.ended.take().is_some() {
                // It closed before it took the request: once dropped, it hands it back.
                cx.waker().wake_by_ref();
            }
            let deadline = state.last_sent().unwrap_or(start) + response_timeout;
            self.timer.poll(cx, deadline).map(|()| Err(ExchangeError::Timeout))
        })
        .await;
        self.ear.rest();
        exchanged
    }

    /// Whether any byte of an answer to the last request came.
    pub fn was_answered(&self) -> bool {
        self.ear.has_heard()
    }

    /// Waits for the end of a connection that switched protocols, and takes the
    /// socket and what was read of the new protocol.
    pub async fn into_tunnel(mut self: Box<Self>) -> Option<(UpstreamStream, Bytes)> {
        let driver = std::future::poll_fn(|cx| {
            self.drive(cx);
            if self.driver.is_some() { Poll::Pending } else { Poll::Ready(self.ended.take()) }
        })
        .await?;
        let parts = driver.into_parts();
        let stream = parts.io.into_inner();
        stream.be_patient();
        Some((stream, parts.read_buf))
    }

    /// Ready once `deadline` has passed.
    pub fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        self.timer.poll(cx, deadline)
    }
}

/// A timer that is seldom set: most deadlines are far away and never met.
#[derive(Debug, Default)]
pub struct LazyTimer {
    sleep: Option<(Instant, Pin<Box<tokio::time::Sleep>>)>,
}

impl LazyTimer {
    /// Ready once `deadline` has passed. An armed timer that fires too early is set
    /// again; one that would fire too late is set at once.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let (armed, sleep) = self
            .sleep
            .get_or_insert_with(|| (deadline, Box::pin(tokio::time::sleep_until(deadline.into()))));
        if *armed > deadline {
            *armed = deadline;
            sleep.as_mut().reset(deadline.into());
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                // Not to be polled again: a completed sleep may not be.
                self.sleep = None;
                return Poll::Ready(());
            }
            *armed = deadline;
            sleep.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }
}
