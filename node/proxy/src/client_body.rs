//! The body of a client's request as it comes, over HTTP/1 or HTTP/2.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::BodyError;
use crate::conn::Reply;

/// The body of a request, as its client sends it.
#[derive(Debug)]
pub enum ClientBody {
    Http1(Incoming),
    Http2(StreamBody),
}

/// The body of a request of HTTP/2: its client may send as much again as was taken.
#[derive(Debug)]
pub struct StreamBody {
    stream: RecvStream,
    /// Bytes that are still to come, where the head says how many.
    left: Option<u64>,
    /// All data came; trailers may.
    data_ended: bool,
    /// The client waits for the word that its body is wanted.
    waits: bool,
    reply: Rc<Reply>,
}

impl StreamBody {
    /// Of a request with these headers. `waits` if its client is to be told when the body is wanted.
    pub fn new(stream: RecvStream, headers: &HeaderMap, waits: bool, reply: Rc<Reply>) -> Self {
        let ended = stream.is_end_stream();
        let left = if ended { Some(0) } else { length(headers) };
        Self { stream, left, data_ended: ended, waits, reply }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            let polled = self.stream.poll_data(cx);
            if std::mem::take(&mut self.waits) && polled.is_pending() {
                self.reply.say_continue();
            }
            if let Some(data) = ready!(polled).transpose()? {
                // Whoever takes it has room for it: the client may send as much again.
                let _ = self.stream.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.data_ended = true;
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

/// How long a body is, as all of its lengths say; the library holds the data to the first.
fn length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter().map(|value| {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u64>().ok())
    });
    let first = lengths.next()??;
    lengths.all(|length| length == Some(first)).then_some(first)
}

impl ClientBody {
    /// What answers this request, where requests come side by side.
    pub fn reply(&self) -> Option<&Rc<Reply>> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(body) => Some(&body.reply),
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| Some(frame?.map_err(Into::into)))
            }
            Self::Http2(body) => body.poll_frame(cx).map(|frame| Some(frame?.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_known_if_all_agree() {
        for (values, expected) in [
            (&["5"][..], Some(5)),
            (&["5", "5"], Some(5)),
            (&["5", "6"], None),
            (&["5", "x"], None),
            (&["+5"], None),
            (&[""], None),
            (&["18446744073709551616"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_LENGTH, value.parse().expect("a value"));
            }
            assert_eq!(length(&headers), expected, "{values:?}");
        }
    }
}
