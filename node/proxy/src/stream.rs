//! A client's connection: every byte read is checked, every silence is noted.

use std::cell::RefCell;
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
use crate::framing::{Framing, Step};
use crate::pace::BodyRate;
use crate::wire::Upgrade;
pub use crate::wire::{BODY_RATE_WINDOW, Expiry, Patience, Wire};

/// What hyper reads in place of bytes that it must not see: no tokenizer takes a
/// NUL, so it answers 400 (or fails the body) and closes.
const POISON: &[u8] = b"\0\r\n\r\n";

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
        if let Some(frames) = &mut self.frames {
            let now = Instant::now();
            self.wire.heard_at.set(now);
            if let Err(flood) = frames.feed(&buf.filled()[start..], now) {
                self.wire.flooded.set(true);
                return Err(io::Error::other(flood));
            }
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
        let mut inner = this.inner.borrow_mut();
        let polled = match this.wire.early.poll_before_write(Pin::new(&mut *inner), cx)? {
            Poll::Ready(()) => Pin::new(&mut *inner).poll_write(cx, buf),
            Poll::Pending => Poll::Pending,
        };
        drop(inner);
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
        let early = this.wire.early.poll_before_write(Pin::new(&mut *inner), cx)?;
        let polled = match bufs {
            _ if early.is_pending() => Poll::Pending,
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
        let mut inner = this.inner.borrow_mut();
        let polled = match this.wire.early.poll_flushed(Pin::new(&mut *inner), cx)? {
            Poll::Ready(()) => Pin::new(&mut *inner).poll_flush(cx),
            Poll::Pending => Poll::Pending,
        };
        drop(inner);
        // TLS takes a little more than the socket did, and only a flush tells.
        this.note_write(&polled);
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().inner.borrow_mut()).poll_shutdown(cx)
    }
}
