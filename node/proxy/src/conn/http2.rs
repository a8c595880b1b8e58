//! One client's connection of HTTP/2: its limits, its requests, its end.
//!
//! It is served through the library that hyper's own server stands on, since that server
//! cannot say interim answers (1xx).

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::server::{Connection, Handshake};
use h2::{Ping, PingPong};
use tokio::sync::watch;

use super::{Downstream, Word, drive, reply};
use crate::stream::ClientStream;
use crate::worker::Phase;

/// How much of an answer may wait in memory for its client.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1_024;
/// How much of one request's body may wait for its upstream, and of all of a connection's.
const STREAM_WINDOW_BYTES: u32 = 256 * 1_024;
const CONNECTION_WINDOW_BYTES: u32 = 1_024 * 1_024;
/// Requests that one connection may have under way.
const STREAMS_MAX: u32 = 128;
/// Requests that a client may reset before they were looked at, and requests in error
/// that it may make, until its connection is ended (CVE-2023-44487, CVE-2025-8671).
const RESETS_PENDING_MAX: usize = 20;
const RESETS_LOCAL_MAX: usize = 128;

/// Serves a connection until it ends.
pub(super) async fn serve(
    down: Rc<Downstream>,
    stream: ClientStream,
    mut phase: watch::Receiver<Phase>,
) {
    let socket = stream.socket();
    down.wire.pace_uploads(down.worker.patience());
    let conn = pin!(Server::new(Rc::clone(&down), stream));
    let tell = |conn: Pin<&mut Server>, word| match word {
        Word::Goodbye => conn.get_mut().say_goodbye(),
        Word::Probe => conn.get_mut().probe(),
    };
    // GOAWAY loses no request: it is said as soon as the drain begins.
    drive(&down, conn, &socket, &mut phase, Phase::Lame, tell).await;
    if down.wire.is_flooded() {
        down.worker.telemetry.connection_ended("flood");
    }
}

/// A connection; ready when it has ended.
struct Server {
    down: Rc<Downstream>,
    state: State,
    ping: Option<PingPong>,
    /// It is to end once its requests are answered.
    ending: bool,
}

enum State {
    Beginning(Handshake<ClientStream, Bytes>),
    Serving(Connection<ClientStream, Bytes>),
}

impl Server {
    fn new(down: Rc<Downstream>, stream: ClientStream) -> Self {
        let handshake = h2::server::Builder::new()
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(down.head_bytes_max())
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
            .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
            .max_local_error_reset_streams(Some(RESETS_LOCAL_MAX))
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(stream);
        Self { down, state: State::Beginning(handshake), ping: None, ending: false }
    }

    /// Takes no more requests, and ends once those under way are answered.
    fn say_goodbye(&mut self) {
        self.ending = true;
        if let State::Serving(conn) = &mut self.state {
            conn.graceful_shutdown();
        }
    }

    /// Asks the client for a sign of life: whatever it says next is one.
    fn probe(&mut self) {
        if let Some(ping) = &mut self.ping {
            // The answer to the last one makes room for another.
            let _ = ping.poll_pong(&mut Context::from_waker(Waker::noop()));
            let _ = ping.send_ping(Ping::opaque());
        }
    }
}

impl Future for Server {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Beginning(handshake) => {
                    let Ok(mut conn) = ready!(Pin::new(handshake).poll(cx)) else {
                        return Poll::Ready(());
                    };
                    this.ping = conn.ping_pong();
                    if this.ending {
                        conn.graceful_shutdown();
                    }
                    this.state = State::Serving(conn);
                }
                State::Serving(conn) => match ready!(conn.poll_accept(cx)) {
                    Some(Ok((request, respond))) => {
                        let down = Rc::clone(&this.down);
                        tokio::task::spawn_local(reply::serve(down, request, respond));
                    }
                    // What went wrong was said to the client, as far as it listens.
                    Some(Err(_)) | None => return Poll::Ready(()),
                },
            }
        }
    }
}
