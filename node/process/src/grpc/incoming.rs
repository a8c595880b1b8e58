//! A listener whose connections have shown who they are.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::warn;

use super::PeerInfo;
use crate::tls::{TlsDir, identity_of, reason};

/// How long a client may take to show who it is.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at one time; more clients wait in the listener's backlog.
const HANDSHAKES_MAX: usize = 256;
/// How long to wait after an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose client has shown who it is.
#[derive(Debug)]
pub struct TlsIo {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
}

/// The connections of `listener`, each after its handshake.
///
/// Handshakes run side by side. One that fails is logged and never ends the stream.
pub fn incoming(
    listener: TcpListener,
    tls: TlsDir,
) -> impl Stream<Item = io::Result<TlsIo>> + Send + 'static {
    let accepting = Accepting { listener, tls, handshakes: FuturesUnordered::new() };
    Box::pin(stream::unfold(accepting, |mut accepting| async move {
        let io = accepting.next().await;
        Some((Ok(io), accepting))
    }))
}

type Handshake = Pin<Box<dyn Future<Output = Option<TlsIo>> + Send>>;

struct Accepting {
    listener: TcpListener,
    tls: TlsDir,
    handshakes: FuturesUnordered<Handshake>,
}

impl Accepting {
    async fn next(&mut self) -> TlsIo {
        loop {
            let room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                Some(done) = self.handshakes.next() => {
                    if let Some(io) = done {
                        return io;
                    }
                }
                accepted = self.listener.accept(), if room => match accepted {
                    Ok((tcp, addr)) => {
                        self.handshakes.push(Box::pin(handshake(tcp, addr, self.tls.clone())));
                    }
                    Err(error) => {
                        warn!(%error, "connection not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
}

async fn handshake(tcp: TcpStream, addr: SocketAddr, tls: TlsDir) -> Option<TlsIo> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, accept(tcp, addr, &tls)).await {
        Ok(Ok(io)) => Some(io),
        Ok(Err(reason)) => {
            warn!(peer = %addr, %reason, "handshake refused");
            None
        }
        Err(_) => {
            warn!(peer = %addr, after = ?HANDSHAKE_TIMEOUT, "handshake timed out");
            None
        }
    }
}

async fn accept(tcp: TcpStream, addr: SocketAddr, tls: &TlsDir) -> Result<TlsIo, String> {
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let acceptor = TlsAcceptor::from(tls.server_config());
    let stream = acceptor.accept(tcp).await.map_err(|error| io_reason(&error))?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or("it showed no certificate")?;
    let identity = identity_of(certificate)?;
    Ok(TlsIo { stream, peer: PeerInfo { addr, identity } })
}

/// The TLS error inside of an I/O error, in words, or the I/O error itself.
pub(super) fn io_reason(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => reason(error),
        None => error.to_string(),
    }
}

impl TlsIo {
    /// Who is at the other end.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }
}

impl Connected for TlsIo {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
