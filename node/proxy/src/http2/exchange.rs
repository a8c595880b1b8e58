//! One request over HTTP/2: its head and body up, the answer's down.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, StatusCode, Uri, Version, response};
use http_body::{Body as _, Frame};
use tokio::task::JoinHandle;

use super::Lease;
use crate::body::{BodyState, Broken, Gate, RequestBody};
use crate::dial::LazyTimer;
use crate::early::Listener;

/// What decides how long a request may take.
#[derive(Debug)]
pub struct Exchange<'r> {
    /// Whether the upstream is reached over TLS.
    pub https: bool,
    /// Opened when the upstream says 100.
    pub gate: Option<&'r Gate>,
    /// Hears of interim answers.
    pub client: Option<&'r Listener>,
    pub state: &'r BodyState,
    pub response_timeout: Duration,
}

/// Why no response came.
#[derive(Debug)]
pub enum Failure {
    /// The upstream did not look at it: it may be repeated whatever it is.
    Refused(h2::Error),
    /// It ended after the request was sent.
    Died(h2::Error),
    /// No response head came in time.
    Timeout,
    /// The request's authority cannot be said in HTTP/2.
    Authority,
}

/// Ends its task when dropped.
#[derive(Debug)]
struct Pump(JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an answer, and what belongs to its request.
#[derive(Debug)]
pub struct Http2Body {
    stream: RecvStream,
    /// All data came; trailers may.
    data_ended: bool,
    ended: bool,
    silent_since: Option<Instant>,
    timer: LazyTimer,
    /// The request's body, which may still be on its way.
    _pump: Option<Pump>,
    _lease: Lease,
}

impl Exchange<'_> {
    /// Sends `request` and waits for the head of the answer.
    pub async fn run(
        &self,
        mut lease: Lease,
        request: Request<RequestBody>,
    ) -> Result<(response::Parts, Http2Body), Failure> {
        let (mut parts, body) = request.into_parts();
        let uri = absolute(&parts.uri, parts.headers.get(HOST), self.https);
        parts.uri = uri.ok_or(Failure::Authority)?;
        for name in [HOST, CONNECTION, UPGRADE, TRANSFER_ENCODING] {
            parts.headers.remove(name);
        }
        parts.version = Version::HTTP_2;
        std::future::poll_fn(|cx| lease.sender.poll_ready(cx)).await.map_err(Failure::Refused)?;
        let end = body.is_end_stream();
        let sent = lease.sender.send_request(Request::from_parts(parts, ()), end);
        let (mut answer, stream) = sent.map_err(Failure::Refused)?;
        let pump = (!end).then(|| Pump(tokio::task::spawn_local(pump(stream, body))));
        let (start, mut timer) = (Instant::now(), LazyTimer::default());
        let (head, stream) = std::future::poll_fn(|cx| {
            self.listen(&mut answer, cx);
            if let Poll::Ready(answered) = Pin::new(&mut answer).poll(cx) {
                return Poll::Ready(answered.map(http::Response::into_parts).map_err(failure));
            }
            let deadline = self.state.last_sent().unwrap_or(start) + self.response_timeout;
            timer.poll(cx, deadline).map(|()| Err(Failure::Timeout))
        })
        .await?;
        Ok((
            head,
            Http2Body {
                stream,
                data_ended: false,
                ended: false,
                silent_since: None,
                timer,
                _pump: pump,
                _lease: lease,
            },
        ))
    }

    /// Listens to interim answers.
    fn listen(&self, answer: &mut ResponseFuture, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(Ok(early))) = answer.poll_informational(cx) {
            if let Some(gate) = self.gate.filter(|_| early.status() == StatusCode::CONTINUE) {
                gate.open();
            }
            if let Some(client) = self.client {
                client.say(early.status(), early.headers());
            }
        }
    }
}

/// The target with scheme and authority, as HTTP/2 has it.
fn absolute(uri: &Uri, host: Option<&http::HeaderValue>, https: bool) -> Option<Uri> {
    let host = Authority::try_from(host?.as_bytes()).ok()?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(host);
    parts.path_and_query =
        Some(uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).ok()
}

fn failure(error: h2::Error) -> Failure {
    // GOAWAY reaches the streams that the upstream did not begin (RFC 9113 §6.8).
    let unseen = error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
    if unseen && error.is_remote() { Failure::Refused(error) } else { Failure::Died(error) }
}

/// Sends a body as it comes and as there is room for it, until either side ends.
async fn pump(mut stream: SendStream<Bytes>, mut body: RequestBody) {
    loop {
        let frame = std::future::poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            Pin::new(&mut body).poll_frame(cx).map(Some)
        });
        let sent = match frame.await {
            // The upstream wants no more of it. Dropped, the body tells the client.
            None => return,
            Some(Some(Ok(frame))) => send(&mut stream, frame, body.is_end_stream()).await,
            Some(None) => stream.send_data(Bytes::new(), true).map(|()| true),
            Some(Some(Err(_))) => {
                stream.send_reset(Reason::CANCEL);
                return;
            }
        };
        if !matches!(sent, Ok(false)) {
            // It is sent whole, or cannot be: the answer's side says why.
            return;
        }
    }
}

/// Sends a frame as there is room for it; true after the last one.
pub async fn send(
    stream: &mut SendStream<Bytes>,
    frame: Frame<Bytes>,
    last: bool,
) -> Result<bool, h2::Error> {
    let mut data = match frame.into_data() {
        Ok(data) => data,
        Err(frame) => {
            let trailers = frame.into_trailers().unwrap_or_default();
            return stream.send_trailers(trailers).map(|()| true);
        }
    };
    if data.is_empty() && last {
        return stream.send_data(data, true).map(|()| true);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(room) = room.transpose()? else { return Ok(true) };
        let piece = data.split_to(room.min(data.len()));
        let end = last && data.is_empty();
        stream.send_data(piece, end)?;
    }
    Ok(last)
}

impl Http2Body {
    /// Whether all of it was taken.
    pub fn is_end_stream(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    /// The next piece; the error is [`Broken::Silent`] after `silence_max` without any.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        silence_max: Duration,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = self.poll_stream(cx);
        if polled.is_ready() {
            self.silent_since = None;
            return polled.map_err(|error| match error.is_reset() {
                true => Broken::Reset(error.into()),
                false => Broken::Off(error.into()),
            });
        }
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        ready!(self.timer.poll(cx, since + silence_max));
        Poll::Ready(Some(Err(Broken::Silent)))
    }

    fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Whoever takes it has room for it: the upstream may send as much again.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if !data.is_empty() || self.stream.is_end_stream() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(self.end(error).map(Err)),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.ended = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => Poll::Ready(self.end(error).map(Err)),
        }
    }

    /// Ends the body. A reset that is no error follows an answer that is whole (RFC
    /// 9113 §8.1): the upstream has no use for the rest of the request.
    fn end(&mut self, error: h2::Error) -> Option<h2::Error> {
        self.ended = true;
        let whole = error.is_reset() && error.reason() == Some(Reason::NO_ERROR);
        (!whole).then_some(error)
    }
}
