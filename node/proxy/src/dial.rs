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
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::body::RequestBody;
use crate::upstream::Upstream;

/// How long sent bytes may stay unacknowledged before an upstream counts as cut off.
const USER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection is silent before the kernel asks whether the peer still lives.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How much of an upstream's response may wait in memory for a slow client.
const BUFFER_BYTES_MAX: usize = 256 * 1_024;
/// Longest head of a response, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1_024;

type Driver = http1::Connection<TokioIo<UpstreamStream>, RequestBody>;

/// Why no connection came to be.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("connect to upstream")]
    Connect(#[source] io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
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
    pub upstream: Arc<Upstream>,
    /// It has carried a request before.
    pub reused: bool,
    pub idle_since: Instant,
    user_timeout: Rc<Cell<Duration>>,
    timer: LazyTimer,
}

impl fmt::Debug for UpstreamConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamConn({:?})", self.upstream)
    }
}

impl UpstreamConn {
    /// Connects within `timeout`.
    pub async fn dial(upstream: &Arc<Upstream>, timeout: Duration) -> Result<Box<Self>, DialError> {
        let connect = TcpStream::connect(upstream.address);
        let inner = match tokio::time::timeout(timeout, connect).await {
            Ok(connected) => connected.map_err(DialError::Connect)?,
            Err(_) => return Err(DialError::Timeout(timeout)),
        };
        prepare(&inner).map_err(DialError::Connect)?;
        let user_timeout = Rc::new(Cell::new(USER_TIMEOUT));
        let stream = UpstreamStream { inner, set: USER_TIMEOUT, wanted: Rc::clone(&user_timeout) };
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| DialError::Connect(io::Error::other(error)))?;
        Ok(Box::new(Self {
            sender,
            driver: Some(driver),
            ended: None,
            upstream: Arc::clone(upstream),
            reused: false,
            idle_since: Instant::now(),
            user_timeout,
            timer: LazyTimer::default(),
        }))
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

    /// Sends `request` and waits for the head of the response.
    ///
    /// `send_timeout` is given for a request with a large body: a peer that takes no
    /// bytes for a while is then merely slow.
    pub async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        response_timeout: Duration,
        send_timeout: Option<Duration>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        // The kernel's user timeout also ends connections whose peer has no room
        // for more, which is no fault while it works on a large body.
        self.user_timeout.set(send_timeout.unwrap_or(USER_TIMEOUT).max(USER_TIMEOUT));
        let mut answer = pin!(self.sender.try_send_request(request));
        let deadline = Instant::now() + response_timeout;
        std::future::poll_fn(|cx| {
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
            self.timer.poll(cx, deadline).map(|()| Err(ExchangeError::Timeout))
        })
        .await
    }

    /// Waits for the end of a connection that switched protocols, and takes the
    /// socket and what was read of the new protocol.
    pub async fn into_tunnel(mut self: Box<Self>) -> Option<(TcpStream, Bytes)> {
        let driver = std::future::poll_fn(|cx| {
            self.drive(cx);
            if self.driver.is_some() { Poll::Pending } else { Poll::Ready(self.ended.take()) }
        })
        .await?;
        let parts = driver.into_parts();
        let stream = parts.io.into_inner().inner;
        // A tunnel may stand still as long as it likes; keep-alive finds the dead.
        set_user_timeout(&stream, Duration::ZERO);
        Some((stream, parts.read_buf))
    }

    /// Ready once `deadline` has passed.
    pub fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        self.timer.poll(cx, deadline)
    }
}

/// The socket, whose user timeout can be changed although hyper owns it.
struct UpstreamStream {
    inner: TcpStream,
    set: Duration,
    wanted: Rc<Cell<Duration>>,
}

impl UpstreamStream {
    fn settle(&mut self) {
        let wanted = self.wanted.get();
        if self.set != wanted {
            self.set = wanted;
            set_user_timeout(&self.inner, wanted);
        }
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.settle();
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.settle();
        match bufs {
            // A plain send is the cheaper call.
            [one] => Pin::new(&mut this.inner).poll_write(cx, one),
            _ => Pin::new(&mut this.inner).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn set_user_timeout(stream: &TcpStream, timeout: Duration) {
    let timeout = (!timeout.is_zero()).then_some(timeout);
    // A socket that refuses has ended, which its next use tells.
    let _ = SockRef::from(stream).set_tcp_user_timeout(timeout);
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
