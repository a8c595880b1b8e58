//! After a 101: bytes both ways, until a side ends, both fall silent or the drain ends.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::watch;

use crate::record::Record;
use crate::socket::UpstreamStream;
use crate::worker::Phase;

/// Buffer per direction.
const BUFFER_BYTES: usize = 16 * 1_024;

/// The upstream's half of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    pub upstream: UpstreamStream,
    /// What the upstream sent along with its 101.
    pub early: Bytes,
    pub idle_max: Duration,
    /// Logged when the tunnel ends.
    pub record: Box<Record>,
}

/// Carries bytes both ways. `early` is what the client sent along with its request.
pub async fn run(
    tunnel: Tunnel,
    client: impl AsyncRead + AsyncWrite + Unpin,
    early: [Bytes; 2],
    phase: &mut watch::Receiver<Phase>,
) {
    let Tunnel { upstream, early: answer, idle_max, mut record } = tunnel;
    let last = Cell::new(Instant::now());
    let received = Cell::new(0);
    let mut client = Metered { inner: client, last: &last, written: &received };
    let unread = Cell::new(0);
    let mut upstream = Metered { inner: upstream, last: &last, written: &unread };
    let copy = async {
        for bytes in early {
            upstream.write_all(&bytes).await?;
        }
        client.write_all(&answer).await?;
        tokio::io::copy_bidirectional_with_sizes(
            &mut client,
            &mut upstream,
            BUFFER_BYTES,
            BUFFER_BYTES,
        )
        .await
    };
    let mut copy = pin!(copy);
    loop {
        let deadline = last.get() + idle_max;
        tokio::select! {
            biased;
            // Either side may end as it likes: there is nobody left to tell.
            _ = copy.as_mut() => break,
            ended = phase.wait_for(|phase| *phase == Phase::Cut) => {
                record.error = Some("cut_off");
                drop(ended);
                break;
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                if last.get() + idle_max <= Instant::now() {
                    record.error = Some("tunnel_idle");
                    break;
                }
            }
        }
    }
    record.bytes = received.get();
}

/// A stream that notes when bytes last passed, and how many were written.
struct Metered<'m, S> {
    inner: S,
    last: &'m Cell<Instant>,
    written: &'m Cell<u64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<'_, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        if polled.is_ready() {
            this.last.set(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<'_, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = polled {
            this.last.set(Instant::now());
            this.written.set(this.written.get() + count as u64);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
