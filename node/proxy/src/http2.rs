//! HTTP/2 to upstreams: gRPC, and whoever asks for it.
//!
//! A connection carries many requests. It is driven by a task of its own, since none of
//! them may stop the others; so is a request's body on its way up, since the answer may
//! stand still while the client still sends, and the other way round.
//!
//! Neither direction is gathered: a frame is taken from one side when the other has room
//! for it, so that the windows of HTTP/2 pass pressure on from end to end. A request
//! that is dropped resets its stream, and nothing else.

mod exchange;
mod pool;

pub use exchange::{Exchange, Failure, Http2Body, send};
pub use pool::Http2Pool;

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;

use crate::dial::{Destination, DialError, HEAD_BYTES_MAX, Key};

/// How much of one response may wait in memory for a slow client.
const STREAM_WINDOW_BYTES: u32 = 256 * 1_024;
/// Requests under way on one connection; the upstream may allow fewer.
const STREAMS_MAX: usize = 100;
/// Room for all of them: clients that read slowly must not stop others.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1_024 * 1_024;
/// How much of one request's body may wait for a connection that takes no bytes.
const SEND_BUFFER_BYTES: usize = 256 * 1_024;
/// How long an upstream may take no bytes at all before its connection counts as cut
/// off. Longer than for HTTP/1.1: one busy moment would break many requests off.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of a connection, beside what it is used by.
#[derive(Debug)]
struct State {
    /// Requests under way.
    streams: Cell<usize>,
    /// Requests that it has begun.
    begun: Cell<u64>,
    idle_since: Cell<Instant>,
    ended: Cell<bool>,
}

/// A connection of many requests.
struct Http2Conn {
    sender: SendRequest<Bytes>,
    destination: Destination,
    key: Key,
    state: Rc<State>,
}

impl fmt::Debug for Http2Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http2Conn({:?}, {:?})", self.destination.upstream, self.state)
    }
}

impl Http2Conn {
    /// Connects within `timeout`, until the upstream has answered in HTTP/2. So one that
    /// speaks something else is known before it is sent a request, and so are its limits.
    async fn dial(destination: &Destination, timeout: Duration) -> Result<Self, DialError> {
        match tokio::time::timeout(timeout, Self::connect(destination)).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::Timeout(timeout)),
        }
    }

    async fn connect(destination: &Destination) -> Result<Self, DialError> {
        let failed = |error| DialError::Http2(Arc::new(error));
        let key = destination.key();
        let stream = destination.connect(true).await?;
        stream.user_timeout().set(USER_TIMEOUT);
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(failed)?;
        let ping = connection.ping_pong();
        let state = Rc::new(State {
            streams: Cell::new(0),
            begun: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            ended: Cell::new(false),
        });
        let (tell, mut ended) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local({
            let state = Rc::clone(&state);
            async move {
                let result = connection.await;
                state.ended.set(true);
                // Nobody waits for it once the connection is in use.
                let _ = tell.send(result);
            }
        });
        if let Some(mut ping) = ping {
            tokio::select! {
                biased;
                result = &mut ended => return Err(failed(match result {
                    Ok(Err(error)) => error,
                    _ => h2::Reason::PROTOCOL_ERROR.into(),
                })),
                answered = ping.ping(h2::Ping::opaque()) => { answered.map_err(failed)?; }
            }
        }
        Ok(Self { sender, destination: destination.clone(), key, state })
    }

    /// Whether it takes another request.
    fn has_room(&mut self) -> bool {
        let most = self.sender.current_max_send_streams().min(STREAMS_MAX);
        self.lives() && self.state.streams.get() < most
    }

    /// Whether it takes requests at all: it has not ended, and was not told to.
    fn lives(&mut self) -> bool {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        !self.state.ended.get() && !matches!(self.sender.poll_ready(cx), Poll::Ready(Err(_)))
    }

    /// Whether it is worth keeping: see [`crate::dial::UpstreamConn::is_kept`].
    fn is_kept(&mut self, now: Instant, idle_max: Duration) -> bool {
        let state = &self.state;
        let idle = state.streams.get() == 0
            && now.saturating_duration_since(state.idle_since.get()) >= idle_max;
        !idle
            && self.destination.upstream.is_kept()
            && self.destination.key() == self.key
            && self.lives()
    }

    /// Begins a request.
    fn lease(&self) -> Lease {
        let begun = self.state.begun.get();
        self.state.begun.set(begun + 1);
        self.state.streams.set(self.state.streams.get() + 1);
        Lease { sender: self.sender.clone(), state: Rc::clone(&self.state), reused: begun > 0 }
    }
}

/// A request's place on a connection, given back when it is dropped.
pub struct Lease {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    reused: bool,
}

impl Lease {
    /// Whether its connection has carried a request before.
    pub fn reused(&self) -> bool {
        self.reused
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?})", self.state)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.state.streams.set(self.state.streams.get().saturating_sub(1));
        if self.state.streams.get() == 0 {
            self.state.idle_since.set(Instant::now());
        }
    }
}
