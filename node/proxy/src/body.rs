//! Bodies on their way through: one frame at a time, never more than the slower side takes.

use std::cell::Cell;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::client_body::ClientBody;
use crate::dial::UpstreamConn;
use crate::framing::Violation;
use crate::http2::Http2Body;
use crate::pace::UploadPace;
use crate::record::Record;
use crate::stream::Wire;
use crate::worker::Worker;

/// How long a client that expects `100 Continue` is kept waiting for the upstream's word.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// Why a client's body did not arrive whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    TooLarge { limit: u64 },
    Violation(Violation),
    ClientGone,
    TooSlow,
}

/// What a request's body tells whoever waits for the response.
#[derive(Debug, Default)]
pub struct BodyState {
    fault: Cell<Option<BodyFault>>,
    last_sent: Cell<Option<Instant>>,
}

impl BodyState {
    /// Why the body did not arrive whole.
    pub fn fault(&self) -> Option<BodyFault> {
        self.fault.get()
    }

    /// When the last piece of it was passed on.
    pub fn last_sent(&self) -> Option<Instant> {
        self.last_sent.get()
    }
}

/// Keeps a body back until the upstream asks for it: `Expect: 100-continue`.
#[derive(Debug, Default)]
pub struct Gate {
    open: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    /// The upstream wants the body.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.open.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The body of a request, on its way to an upstream.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    Upload(Box<Upload>),
}

/// A body that is being received.
#[derive(Debug)]
pub struct Upload {
    incoming: ClientBody,
    limit: Option<u64>,
    seen: u64,
    state: Rc<BodyState>,
    wire: Rc<Wire>,
    gate: Option<(Arc<Gate>, Pin<Box<tokio::time::Sleep>>)>,
    /// Where the connection does not watch the pace of its one body.
    pace: Option<UploadPace>,
}

impl RequestBody {
    /// The body of a request; `limit` is the most that it may have.
    pub fn new(
        incoming: ClientBody,
        limit: Option<u64>,
        state: &Rc<BodyState>,
        wire: &Rc<Wire>,
        gate: Option<&Arc<Gate>>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let gate =
            gate.map(|gate| (Arc::clone(gate), Box::pin(tokio::time::sleep(CONTINUE_PATIENCE))));
        let (state, wire, pace) = (Rc::clone(state), Rc::clone(wire), wire.upload_pace());
        Self::Upload(Box::new(Upload { incoming, limit, seen: 0, state, wire, gate, pace }))
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// A request's body that did not arrive whole; [`BodyState::fault`] says why.
#[derive(Debug, thiserror::Error)]
#[error("the request body did not arrive whole")]
pub struct Incomplete;

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Incomplete;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Incomplete>>> {
        let Self::Upload(upload) = self.get_mut() else { return Poll::Ready(None) };
        if let Some((gate, patience)) = &mut upload.gate {
            if gate.poll(cx).is_pending() && patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            upload.gate = None;
        }
        let polled = Pin::new(&mut upload.incoming).poll_frame(cx);
        if polled.is_pending() {
            let pace = upload.pace.as_mut();
            if pace.is_some_and(|pace| pace.poll_pending(cx).is_ready()) {
                upload.state.fault.set(Some(BodyFault::TooSlow));
                return Poll::Ready(Some(Err(Incomplete)));
            }
        }
        let fault = match std::task::ready!(polled) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                if let Some(pace) = &mut upload.pace {
                    pace.came(bytes);
                }
                upload.seen += bytes;
                match upload.limit {
                    Some(limit) if upload.seen > limit => BodyFault::TooLarge { limit },
                    _ => {
                        upload.state.last_sent.set(Some(Instant::now()));
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
            }
            Some(Err(_)) => match upload.wire.violation() {
                Some(violation) => BodyFault::Violation(violation),
                None => BodyFault::ClientGone,
            },
        };
        upload.state.fault.set(Some(fault));
        Poll::Ready(Some(Err(Incomplete)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(upload) => upload.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(upload) => upload.incoming.size_hint(),
        }
    }
}

/// Why a response's body did not arrive whole, for hyper to end the connection or stream.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// The body of a response, on its way to the client.
#[derive(Debug)]
pub enum ResponseBody {
    /// What the proxy itself says, or nothing.
    Own { text: &'static str, record: Option<Box<Record>> },
    /// What an upstream says.
    Streaming(Box<Streaming>),
}

/// The body of an answer, where it comes from.
#[derive(Debug)]
pub enum Received {
    Http1(Incoming, Box<UpstreamConn>),
    Http2(Box<Http2Body>),
}

/// A response that is being received.
#[derive(Debug)]
pub struct Streaming {
    source: Source,
    silence_max: Duration,
    /// Why the rest will not come, said once what came has gone to the client.
    broken: Option<Broken>,
    record: Box<Record>,
}

#[derive(Debug)]
enum Source {
    Http1 {
        incoming: Incoming,
        /// Until the response has ended and the connection is free for another.
        conn: Option<Box<UpstreamConn>>,
        silent_since: Option<Instant>,
    },
    Http2(Box<Http2Body>),
}

impl Streaming {
    /// What is `received`, as long as no silence is longer than `silence_max`.
    pub fn new(received: Received, silence_max: Duration, record: Box<Record>) -> Self {
        let source = match received {
            Received::Http1(incoming, conn) => {
                Source::Http1 { incoming, conn: Some(conn), silent_since: None }
            }
            Received::Http2(body) => Source::Http2(body),
        };
        Self { source, silence_max, broken: None, record }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { source, silence_max, broken, record } = self;
        if let Some(broken) = broken.take() {
            return Poll::Ready(Some(Err(broken.into())));
        }
        let polled = match source {
            Source::Http1 { incoming, conn, silent_since } => {
                let worker = record.worker();
                poll_http1(incoming, conn, silent_since, *silence_max, worker, cx)
            }
            Source::Http2(body) => body.poll_frame(cx, *silence_max),
        };
        Poll::Ready(match std::task::ready!(polled) {
            Some(Ok(frame)) => {
                record.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                record.broke_off(&error);
                // hyper drops what it has not written when it hears of an error, be it
                // the head of the answer: so it hears of it in the next turn.
                *broken = Some(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => None,
        })
    }
}

/// Takes the next piece of an answer, and drives the connection that it comes over.
fn poll_http1(
    incoming: &mut Incoming,
    conn: &mut Option<Box<UpstreamConn>>,
    silent_since: &mut Option<Instant>,
    silence_max: Duration,
    worker: &Worker,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
    let finish = |conn: &mut Option<Box<UpstreamConn>>, cx: &mut Context<'_>| {
        if let Some(conn) = conn.take() {
            worker.pool.put(conn, cx);
        }
    };
    let mut driven = false;
    loop {
        match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                *silent_since = None;
                if incoming.is_end_stream() {
                    finish(conn, cx);
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(None) => {
                finish(conn, cx);
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => {
                *conn = None;
                return Poll::Ready(Some(Err(Broken::Off(error.into()))));
            }
            Poll::Pending => {}
        }
        let Some(live) = conn else { return Poll::Pending };
        if driven {
            let since = *silent_since.get_or_insert_with(Instant::now);
            std::task::ready!(live.poll_deadline(cx, since + silence_max));
            *conn = None;
            return Poll::Ready(Some(Err(Broken::Silent)));
        }
        live.drive(cx);
        driven = true;
    }
}

/// Why an answer did not come whole. hyper looks for the code of a reset in the causes,
/// and resets the client's stream with the same.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the upstream broke off")]
    Off(#[source] BodyError),
    #[error("the application reset the stream")]
    Reset(#[source] BodyError),
    #[error("the upstream fell silent")]
    Silent,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Own { text: "", .. } => Poll::Ready(None),
            Self::Own { text, record } => {
                let bytes = Bytes::from_static(std::mem::take(text).as_bytes());
                if let Some(record) = record {
                    record.bytes += bytes.len() as u64;
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Streaming(streaming) => streaming.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { text, .. } => text.is_empty(),
            Self::Streaming(streaming) => match &streaming.source {
                Source::Http1 { incoming, .. } => incoming.is_end_stream(),
                Source::Http2(body) => body.is_end_stream(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { text, .. } => SizeHint::with_exact(text.len() as u64),
            Self::Streaming(streaming) => match &streaming.source {
                Source::Http1 { incoming, .. } => incoming.size_hint(),
                // Its head says how long it is, if anything does.
                Source::Http2(_) => SizeHint::default(),
            },
        }
    }
}
