//! Interim answers (1xx) on their way from an upstream to a client.
//!
//! hyper's client skips them and its server cannot say them, so in HTTP/1.1 they go beside
//! it. The [`Ear`] listens to the first bytes of each answer, and the [`Relay`] speaks
//! between what hyper writes: only while hyper has nothing left to write, since only then it
//! is certain that no other answer's bytes come first. Else it is dropped, as a client may
//! do with any 1xx. In HTTP/2 each request has a stream of its own, and its [`Reply`] says
//! them there.
//!
//! `100 Continue` is not among them: it is said when the upstream asks for the body, by hyper
//! or by the [`Reply`]. Neither is 101, which is an answer.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version, request};
use tokio::io::AsyncWrite;

use crate::client_body::ClientBody;
use crate::conn::{Downstream, Reply};
use crate::headers::strip_hop_by_hop;
use crate::stream::Wire;

/// Most bytes of interim answers that are kept for a client, or of one such head; of HTTP/2,
/// where none are kept, most that are said of one request.
pub const EARLY_BYTES_MAX: usize = 16 * 1_024;
/// How every interim answer of HTTP/1.1 begins.
const START: &[u8] = b"HTTP/1.1 1";

/// The client of a request, as somebody to whom interim answers are said.
#[derive(Clone, Debug)]
pub enum Listener {
    Http1(Rc<Wire>),
    Http2(Rc<Reply>),
}

impl Listener {
    /// Who waits for the answer to this request, unless it knows no interim ones (HTTP/1.0).
    pub fn of(down: &Downstream, parts: &request::Parts, body: &ClientBody) -> Option<Self> {
        match body.reply() {
            Some(reply) => Some(Self::Http2(Rc::clone(reply))),
            None => (parts.version == Version::HTTP_11).then(|| Self::Http1(Rc::clone(&down.wire))),
        }
    }

    /// Passes on an interim answer of an upstream.
    pub fn say(&self, status: StatusCode, headers: &HeaderMap) {
        if !status.is_informational()
            || matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
        {
            return;
        }
        let mut headers = headers.clone();
        strip_hop_by_hop(&mut headers);
        headers.remove(CONTENT_LENGTH);
        match self {
            Self::Http1(wire) => wire.early.say(status, &headers),
            Self::Http2(reply) => reply.say(status, headers),
        }
    }
}

/// Interim answers that a client is still to be sent.
#[derive(Debug, Default)]
pub struct Relay {
    bytes: RefCell<BytesMut>,
    /// Whether there are any: looked at with every write.
    waiting: Cell<bool>,
    /// hyper has written all that it had.
    is_flushed: Cell<bool>,
    /// A part was written: the rest must follow.
    begun: Cell<bool>,
}

impl Relay {
    /// Leaves an interim answer, unless too much waits already.
    fn say(&self, status: StatusCode, headers: &HeaderMap) {
        let mut head = BytesMut::new();
        let reason = status.canonical_reason().unwrap_or_default();
        head.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
        for (name, value) in headers {
            for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(piece);
            }
        }
        head.extend_from_slice(b"\r\n");
        let mut bytes = self.bytes.borrow_mut();
        if bytes.len() + head.len() <= EARLY_BYTES_MAX {
            bytes.extend_from_slice(&head);
            self.waiting.set(true);
        }
    }

    /// To be called before bytes of hyper's are written.
    pub fn poll_before_write(
        &self,
        to: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.waiting.get() {
            if self.is_flushed.get() || self.begun.get() {
                ready!(self.poll_write(to, cx))?;
            } else {
                self.bytes.borrow_mut().clear();
                self.waiting.set(false);
            }
        }
        self.is_flushed.set(false);
        Poll::Ready(Ok(()))
    }

    /// To be called when hyper has written all that it had.
    pub fn poll_flushed(
        &self,
        to: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_flushed.set(true);
        if self.waiting.get() { self.poll_write(to, cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_write(
        &self,
        mut to: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = self.bytes.borrow_mut();
        while !bytes.is_empty() {
            let written = ready!(to.as_mut().poll_write(cx, &bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
            self.begun.set(!bytes.is_empty());
        }
        self.waiting.set(false);
        Poll::Ready(Ok(()))
    }
}

/// What listens to one connection to an upstream.
#[derive(Debug, Default)]
pub struct Ear {
    /// Between a request and the head of its answer.
    listens: Cell<bool>,
    /// Whether any byte came since the request.
    heard: Cell<bool>,
    client: RefCell<Option<Listener>>,
    /// The beginning of a head whose end has not come yet.
    partial: RefCell<Vec<u8>>,
}

impl Ear {
    /// An answer is to come; its interim ones are for this client.
    pub fn listen(&self, client: Option<&Listener>) {
        self.listens.set(client.is_some());
        self.heard.set(false);
        *self.client.borrow_mut() = client.cloned();
        self.partial.borrow_mut().clear();
    }

    /// The answer has come.
    pub fn rest(&self) {
        self.listens.set(false);
        self.client.borrow_mut().take();
    }

    /// Whether any byte of an answer came, be it an interim one.
    pub fn has_heard(&self) -> bool {
        self.heard.get()
    }

    /// Hears the next bytes of an answer.
    pub fn hear(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.heard.set(true);
        if !self.listens.get() {
            return;
        }
        let mut partial = self.partial.borrow_mut();
        if partial.is_empty() && !may_be_early(bytes) {
            return self.listens.set(false);
        }
        partial.extend_from_slice(bytes);
        let heard = self.heads(&partial);
        partial.drain(..heard);
        if !self.listens.get() || !may_be_early(&partial) || partial.len() > EARLY_BYTES_MAX {
            partial.clear();
            self.listens.set(false);
        }
    }

    /// Passes on the whole interim answers at the beginning of `bytes`; says how long they are.
    fn heads(&self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while bytes[at..].starts_with(START) {
            let Some(length) = memchr::memmem::find(&bytes[at..], b"\r\n\r\n") else { break };
            if bytes[at + 9..].starts_with(b"101") {
                // An answer: what follows is another protocol's.
                self.listens.set(false);
                return bytes.len();
            }
            if let Some(client) = &*self.client.borrow()
                && let Some((status, headers)) = parse(&bytes[at..at + length])
            {
                client.say(status, &headers);
            }
            at += length + 4;
        }
        at
    }
}

/// Whether what begins like this may be an interim answer, or nothing has come yet.
fn may_be_early(bytes: &[u8]) -> bool {
    let compared = bytes.len().min(START.len());
    bytes[..compared] == START[..compared]
}

/// Takes a head apart. hyper reads it too, and judges the answer; what is odd here is
/// merely not passed on.
fn parse(head: &[u8]) -> Option<(StatusCode, HeaderMap)> {
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.trim_ascii_end());
    let status = StatusCode::from_bytes(lines.next()?.get(9..12)?).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some((status, headers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// What a client hears of an answer that comes in these pieces.
    fn heard(pieces: &[&[u8]]) -> String {
        let (ear, wire) = (Ear::default(), Rc::new(Wire::new(Instant::now())));
        ear.listen(Some(&Listener::Http1(Rc::clone(&wire))));
        for piece in pieces {
            ear.hear(piece);
        }
        let bytes = wire.early.bytes.borrow();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn interim_answers_are_heard_however_they_are_cut() {
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nlink: </b.css>\r\n\r\n";
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let twice = format!("{hints}HTTP/1.1 102 Processing\r\n\r\n{answer}");
        let expected = format!("{hints}HTTP/1.1 102 Processing\r\n\r\n");
        for cut in 0..twice.len() {
            let (first, second) = twice.as_bytes().split_at(cut);
            assert_eq!(heard(&[first, second]), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = twice.as_bytes().chunks(1).collect();
        assert_eq!(heard(&bytes), expected);
    }

    #[test]
    fn what_is_no_interim_answer_is_not_passed_on() {
        let long = format!("HTTP/1.1 103 X\r\nlink: {}\r\n\r\n", "x".repeat(EARLY_BYTES_MAX));
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 103 no\r\n\r\n",
            "HTTP/1.0 103 Early Hints\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nno colon\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nlink: a\0b\r\n\r\n",
            "HTTP/1.1 1x3 Early Hints\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nnever ends",
            &long,
            "",
        ] {
            assert_eq!(heard(&[answer.as_bytes()]), "", "{:?}", &answer[..answer.len().min(60)]);
        }
        let hop =
            "HTTP/1.1 103 X\r\nConnection: x-a\r\nX-A: 1\r\nContent-Length: 3\r\nX-B: 2\r\n\r\n";
        assert_eq!(heard(&[hop.as_bytes()]), "HTTP/1.1 103 Early Hints\r\nx-b: 2\r\n\r\n");
    }
}
