//! A client's connection: every byte read is checked, every silence is timed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::carrier::Carrier;
use crate::frames::Frames;
use crate::framing::{Framing, Step, Violation};
use crate::pace::{BodyRate, Responses, UploadPace};

/// What hyper reads in place of bytes that it must not see: no tokenizer takes a
/// NUL, so it answers 400 (or fails the body) and closes.
const POISON: &[u8] = b"\0\r\n\r\n";
/// How long a client may be waited for until its body has brought another KiB.
pub const BODY_RATE_WINDOW: Duration = Duration::from_secs(60);

/// What becomes of a request that asks for an upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Upgrade {
    #[default]
    None,
    /// The response is not known yet: nothing more is read.
    Waiting,
    Accepted,
    Refused,
}

/// What the stream and the connection that owns it tell each other.
#[derive(Debug)]
pub struct Wire {
    upgrade: Cell<Upgrade>,
    waker: RefCell<Option<Waker>>,
    violation: Cell<Option<Violation>>,
    head_refused: Cell<bool>,
    in_head: Cell<bool>,
    in_body: Cell<bool>,
    /// When the head that is being read began.
    head_since: Cell<Instant>,
    read_pending_since: Cell<Option<Instant>>,
    write_pending_since: Cell<Option<Instant>>,
    body_rate: Cell<BodyRate>,
    /// For HTTP/2, whose bodies come side by side.
    uploads: Cell<Option<Patience>>,
    pub responses: Responses,
    flooded: Cell<bool>,
    /// Requests that are being answered.
    in_flight: Cell<usize>,
    idle_since: Cell<Instant>,
    /// Since when the client is known to have closed its half.
    closed_since: Cell<Option<Instant>>,
}

/// Limits of a client's silence.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// Between two requests, and before the first.
    pub idle: Duration,
    /// Between two reads of a body.
    pub body: Duration,
    /// For each KiB of a body.
    pub body_rate: Duration,
    /// While it takes none of what it is sent.
    pub send: Duration,
    /// For a response, after it closed its half: it may have left.
    pub closed: Duration,
}

/// What a look at the clock says about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing is due before this.
    Until(Instant),
    /// No request is under way, and none came for too long.
    Idle,
    /// The client stopped in the middle of something.
    Stalled(&'static str),
}

impl Wire {
    /// Of a connection that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            upgrade: Cell::default(),
            waker: RefCell::default(),
            violation: Cell::default(),
            head_refused: Cell::default(),
            in_head: Cell::new(false),
            in_body: Cell::new(false),
            head_since: Cell::new(now),
            read_pending_since: Cell::default(),
            write_pending_since: Cell::default(),
            body_rate: Cell::default(),
            uploads: Cell::default(),
            responses: Responses::default(),
            flooded: Cell::default(),
            in_flight: Cell::new(0),
            idle_since: Cell::new(now),
            closed_since: Cell::default(),
        }
    }

    /// The requests of this connection come side by side, each with this patience.
    pub fn pace_uploads(&self, patience: Patience) {
        self.uploads.set(Some(patience));
    }

    /// The pace of the next body, where bodies come side by side.
    pub fn upload_pace(&self) -> Option<UploadPace> {
        self.uploads.get().map(UploadPace::new)
    }

    /// Whether the client sent more frames for nothing than it has a use for.
    pub fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    /// A request began.
    pub fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A request ended, whatever way.
    pub fn end(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        if self.in_flight.get() == 0 {
            self.idle_since.set(Instant::now());
        }
    }

    /// Requests that are being answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Whether the request under way asks for an upgrade, and nothing stands in its way.
    pub fn upgrade_is_asked(&self) -> bool {
        self.upgrade.get() == Upgrade::Waiting
    }

    /// The response to a request that asked for an upgrade is known.
    pub fn decide_upgrade(&self, accepted: bool) {
        if self.upgrade.get() != Upgrade::Waiting {
            return;
        }
        self.upgrade.set(if accepted { Upgrade::Accepted } else { Upgrade::Refused });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What the client did that no request may do.
    pub fn violation(&self) -> Option<Violation> {
        self.violation.get()
    }

    /// Whether it did so in a head, so that no request came of it.
    pub fn head_was_refused(&self) -> bool {
        self.head_refused.get()
    }

    /// Whether the client is still sending a request.
    pub fn is_mid_request(&self) -> bool {
        self.in_head.get() || self.in_body.get() || self.violation.get().is_some()
    }

    /// Notes whether the client closed its half.
    pub fn note_closed(&self, closed: bool) {
        if closed && self.closed_since.get().is_none() {
            self.closed_since.set(Some(Instant::now()));
        }
    }

    /// Looks at the clock. Cheap: done when a timer fires, not per read.
    pub fn expiry(&self, patience: &Patience, now: Instant) -> Expiry {
        let mut next = now + patience.head;
        let mut due = |since: Instant, limit: Duration| {
            next = next.min(since + limit);
            since + limit <= now
        };
        if let Some(since) = self.write_pending_since.get()
            && due(since, patience.send)
        {
            return Expiry::Stalled("send");
        }
        if let Some(since) = self.responses.held_since()
            && due(since, patience.send)
        {
            return Expiry::Stalled("window");
        }
        if self.in_head.get() && due(self.head_since.get(), patience.head) {
            return Expiry::Stalled("head");
        }
        if self.in_body.get()
            && let Some(since) = self.read_pending_since.get()
            && due(since, patience.body)
        {
            return Expiry::Stalled("body");
        }
        if self.in_body.get()
            && let Some(since) = self.read_pending_since.get()
            && due(since, self.body_rate.get().left(patience.body_rate))
        {
            return Expiry::Stalled("slow_body");
        }
        if self.in_flight.get() > 0
            && let Some(since) = self.closed_since.get()
            && due(since, patience.closed)
        {
            return Expiry::Stalled("closed");
        }
        let idle = self.in_flight.get() == 0 && !self.in_head.get() && !self.in_body.get();
        if idle && due(self.idle_since.get(), patience.idle) {
            return Expiry::Idle;
        }
        // Never busy with itself, however small the limits are.
        Expiry::Until(next.max(now + Duration::from_millis(5)))
    }
}

/// What carries the bytes: hyper owns the stream around it, and lends it to nobody.
pub type Socket = Rc<RefCell<Carrier>>;

/// Whether the client closed its half, or more, as far as the kernel knows.
pub fn is_closed(socket: &Socket) -> bool {
    let socket = socket.borrow();
    let mut ready = pin!(socket.tcp().ready(Interest::READABLE | Interest::WRITABLE));
    // One look: the waker that hyper left is another's, and stays.
    match ready.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(ready)) => ready.is_read_closed() || ready.is_write_closed(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

/// A client's stream of bytes, as hyper may see it.
#[derive(Debug)]
pub struct ClientStream {
    inner: Socket,
    /// Bytes that were read and not passed on.
    held: Bytes,
    /// `None` for HTTP/2, whose frames delimit themselves.
    framing: Option<Framing>,
    /// For HTTP/2 alone.
    frames: Option<Frames>,
    wire: Rc<Wire>,
}

impl ClientStream {
    /// `held` is what was read to tell HTTP/1 from HTTP/2.
    pub fn new(inner: Carrier, held: Bytes, http2: bool) -> Self {
        let now = Instant::now();
        let (framing, frames) = match http2 {
            true => (None, Some(Frames::new(now))),
            false => (Some(Framing::default()), None),
        };
        let inner = Rc::new(RefCell::new(inner));
        Self { inner, held, framing, frames, wire: Rc::new(Wire::new(now)) }
    }

    /// The socket, to look at.
    pub fn socket(&self) -> Socket {
        Rc::clone(&self.inner)
    }

    /// What this stream tells about itself.
    pub fn wire(&self) -> Rc<Wire> {
        Rc::clone(&self.wire)
    }

    /// Takes the stream apart, for a tunnel: what carries it, and what was read of it.
    ///
    /// `None` while somebody still looks at the socket.
    pub fn into_parts(self) -> Option<(Carrier, Bytes)> {
        Some((Rc::into_inner(self.inner)?.into_inner(), self.held))
    }

    /// Checks what was just read into `buf` from `start` on.
    fn check(&mut self, buf: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        if let Some(frames) = &mut self.frames
            && let Err(flood) = frames.feed(&buf.filled()[start..], Instant::now())
        {
            self.wire.flooded.set(true);
            return Err(io::Error::other(flood));
        }
        let Some(framing) = &mut self.framing else { return Ok(()) };
        let was_in_head = framing.is_in_head();
        match framing.feed(&buf.filled()[start..]) {
            Step::All => {}
            Step::Upgrade(taken) => {
                let end = start + taken;
                if end < buf.filled().len() {
                    let mut rest = buf.filled()[end..].to_vec();
                    rest.extend_from_slice(&self.held);
                    self.held = rest.into();
                    buf.set_filled(end);
                }
                self.wire.upgrade.set(Upgrade::Waiting);
            }
            Step::Refused(taken, violation) => {
                self.wire.violation.set(Some(violation));
                self.wire.head_refused.set(!framing.is_in_body());
                buf.set_filled(start + taken);
                self.held = Bytes::from_static(POISON);
                // Whatever the client says after this is not heard.
                framing.tunnel();
            }
        }
        let in_head = framing.is_in_head();
        if in_head && !was_in_head {
            self.wire.head_since.set(Instant::now());
        }
        self.wire.in_head.set(in_head);
        let in_body = framing.is_in_body();
        if in_body && !self.wire.in_body.replace(in_body) {
            self.wire.body_rate.set(BodyRate::default());
        }
        self.wire.in_body.set(in_body);
        Ok(())
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.wire.upgrade.get() {
            Upgrade::None => {}
            Upgrade::Waiting => {
                *this.wire.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Upgrade::Accepted => {
                if let Some(framing) = &mut this.framing {
                    framing.tunnel();
                }
                this.wire.upgrade.set(Upgrade::None);
            }
            Upgrade::Refused => this.wire.upgrade.set(Upgrade::None),
        }
        let start = buf.filled().len();
        if this.held.is_empty() {
            if this.wire.violation.get().is_some() {
                // End of stream: hyper has its poison.
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut *this.inner.borrow_mut()).poll_read(cx, buf) {
                Poll::Ready(done) => {
                    let since = this.wire.read_pending_since.take();
                    done?;
                    if this.wire.in_body.get() {
                        let pending = since.map_or(Duration::ZERO, |since| since.elapsed());
                        let mut rate = this.wire.body_rate.get();
                        rate.came((buf.filled().len() - start) as u64, pending);
                        this.wire.body_rate.set(rate);
                    }
                }
                Poll::Pending => {
                    if this.wire.read_pending_since.get().is_none() && this.wire.in_body.get() {
                        this.wire.read_pending_since.set(Some(Instant::now()));
                    }
                    return Poll::Pending;
                }
            }
        } else {
            let taken = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held[..taken]);
            this.held.advance(taken);
            if this.wire.violation.get().is_some() {
                return Poll::Ready(Ok(()));
            }
        }
        this.check(buf, start)?;
        if buf.filled().len() == start && !this.held.is_empty() {
            // The very first byte was refused: what hyper gets instead must not be
            // an empty read, which means the end.
            let taken = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held[..taken]);
            this.held.advance(taken);
        }
        Poll::Ready(Ok(()))
    }
}

impl ClientStream {
    fn note_write<T>(&self, polled: &Poll<T>) {
        let since = &self.wire.write_pending_since;
        match polled {
            Poll::Ready(_) => since.set(None),
            Poll::Pending if since.get().is_none() => since.set(Some(Instant::now())),
            Poll::Pending => {}
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut *this.inner.borrow_mut()).poll_write(cx, buf);
        this.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut inner = this.inner.borrow_mut();
        let polled = match bufs {
            // A plain send is the cheaper call.
            [one] => Pin::new(&mut *inner).poll_write(cx, one),
            _ => Pin::new(&mut *inner).poll_write_vectored(cx, bufs),
        };
        drop(inner);
        this.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut *this.inner.borrow_mut()).poll_flush(cx);
        // TLS takes a little more than the socket did, and only a flush tells.
        this.note_write(&polled);
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().inner.borrow_mut()).poll_shutdown(cx)
    }
}
