//! One request of HTTP/2, from its head to the last piece of its answer.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, response};
use http_body::Body as _;

use super::{Downstream, answer};
use crate::body::ResponseBody;
use crate::client_body::{ClientBody, StreamBody};
use crate::early::EARLY_BYTES_MAX;
use crate::forward::expects_continue;
use crate::http2::send;

/// What a header costs in a list of headers beside its bytes (RFC 9113 §6.5.2).
const HEADER_OVERHEAD_BYTES: usize = 32;

/// What answers a request: interim answers may come before the one answer.
pub struct Reply {
    respond: RefCell<SendResponse<Bytes>>,
    /// Nothing interim may be said any more: the answer began, or its client left.
    closed: Cell<bool>,
    /// Bytes of interim answers that may still be said: no window bounds them.
    early_left: Cell<usize>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({})", self.respond.borrow().stream_id().as_u32())
    }
}

impl Reply {
    /// Says an interim answer, unless too much was said already.
    pub fn say(&self, status: StatusCode, headers: HeaderMap) {
        let fields = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES);
        let bytes = HEADER_OVERHEAD_BYTES + fields.sum::<usize>();
        let Some(left) = self.early_left.get().checked_sub(bytes) else { return };
        if self.closed.get() {
            return;
        }
        self.early_left.set(left);
        let mut early = Response::new(());
        *early.status_mut() = status;
        *early.headers_mut() = headers;
        // One that cannot be said is dropped, as a client may do with any.
        let _ = self.respond.borrow_mut().send_informational(early);
    }

    /// Says that the body is wanted.
    pub fn say_continue(&self) {
        self.say(StatusCode::CONTINUE, HeaderMap::new());
    }

    /// Waits for what makes the answer; `None` once the client has left.
    async fn unless_reset<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = pin!(answer);
        let answered = std::future::poll_fn(|cx| {
            // Before the answer is looked at: nothing is said on a stream that is gone.
            if self.respond.borrow_mut().poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            answer.as_mut().poll(cx).map(Some)
        })
        .await;
        self.closed.set(true);
        answered
    }

    /// Says the head of the answer; `None` if it cannot be said.
    fn answer(&self, head: response::Parts, end: bool) -> Option<SendStream<Bytes>> {
        let mut respond = self.respond.borrow_mut();
        let sent = respond.send_response(Response::from_parts(head, ()), end);
        sent.inspect_err(|_| respond.send_reset(Reason::INTERNAL_ERROR)).ok()
    }
}

/// Serves one request.
pub(super) async fn serve(
    down: Rc<Downstream>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (parts, stream) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let reply = Rc::new(Reply {
        respond: RefCell::new(respond),
        closed: Cell::new(false),
        early_left: Cell::new(EARLY_BYTES_MAX),
    });
    let waits = expects_continue(&parts);
    let body = StreamBody::new(stream, &parts.headers, waits, Rc::clone(&reply));
    let request = Request::from_parts(parts, ClientBody::Http2(body));
    let answer = answer(Rc::clone(&down), request);
    let Some(response) = reply.unless_reset(answer).await else { return };
    let (mut head, body) = response.into_parts();
    head.headers.entry(DATE).or_insert_with(|| down.worker.dates.now());
    let mut end = body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !end) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
        // What the proxy itself says; an upstream sends no body here.
        end = is_head;
    }
    let Some(stream) = reply.answer(head, end) else { return };
    if !end {
        pass_on(&down, stream, body).await;
    }
}

/// Sends a body as it comes and as the client takes it.
async fn pass_on(down: &Downstream, mut stream: SendStream<Bytes>, body: ResponseBody) {
    let mut body = down.wire.responses.watch(body);
    loop {
        let next = std::future::poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            Pin::new(&mut body).poll_frame(cx).map(Some)
        });
        let sent = match next.await {
            // The client left.
            None => return,
            Some(Some(Ok(frame))) => send(&mut stream, frame, body.is_end_stream()).await,
            Some(None) => stream.send_data(Bytes::new(), true).map(|()| true),
            Some(Some(Err(error))) => return stream.send_reset(code_of(&*error)),
        };
        if !matches!(sent, Ok(false)) {
            // It is sent whole, or its client left.
            return;
        }
    }
}

/// The code of the reset that caused this error, which the client is to see, too.
fn code_of(error: &(dyn Error + 'static)) -> Reason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref().and_then(h2::Error::reason) {
            return reason;
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
