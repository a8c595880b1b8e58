//! The stream to an upstream: a socket, or TLS over one.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::early::Ear;

/// How long sent bytes may stay unacknowledged before an upstream counts as cut off.
pub const USER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection is silent before the kernel asks whether the peer still lives.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Carrier {
    Plain(TcpStream),
    /// Boxed: a TLS session is large beside a socket.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The stream to an upstream, whose user timeout can be changed although hyper owns it.
#[derive(Debug)]
pub struct UpstreamStream {
    carrier: Carrier,
    set: Duration,
    wanted: Rc<Cell<Duration>>,
    ear: Rc<Ear>,
}

impl UpstreamStream {
    /// A connection in plain, made ready for requests.
    pub fn plain(tcp: TcpStream) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(&tcp);
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let wanted = Rc::new(Cell::new(USER_TIMEOUT));
        Ok(Self { carrier: Carrier::Plain(tcp), set: USER_TIMEOUT, wanted, ear: Rc::default() })
    }

    /// A connection as it is: it may stand still as long as it likes.
    pub fn unguarded(tcp: TcpStream) -> Self {
        let wanted = Rc::new(Cell::new(Duration::ZERO));
        Self { carrier: Carrier::Plain(tcp), set: Duration::ZERO, wanted, ear: Rc::default() }
    }

    /// The stream after a TLS handshake by `secure`.
    pub async fn secured<E>(
        self,
        secure: impl AsyncFnOnce(TcpStream) -> Result<TlsStream<TcpStream>, E>,
    ) -> Result<Self, E> {
        let carrier = match self.carrier {
            Carrier::Plain(tcp) => Carrier::Tls(Box::new(secure(tcp).await?)),
            tls @ Carrier::Tls(_) => tls,
        };
        Ok(Self { carrier, ..self })
    }

    /// What listens to the answers.
    pub fn ear(&self) -> Rc<Ear> {
        Rc::clone(&self.ear)
    }

    /// Sets the user timeout with the next write.
    pub fn user_timeout(&self) -> Rc<Cell<Duration>> {
        Rc::clone(&self.wanted)
    }

    /// From now on it may stand still as long as it likes; keep-alive finds the dead.
    pub fn be_patient(&self) {
        self.wanted.set(Duration::ZERO);
        set_user_timeout(self.tcp(), Duration::ZERO);
    }

    fn tcp(&self) -> &TcpStream {
        match &self.carrier {
            Carrier::Plain(tcp) => tcp,
            Carrier::Tls(tls) => tls.get_ref().0,
        }
    }

    fn settle(&mut self) {
        let wanted = self.wanted.get();
        if self.set != wanted {
            self.set = wanted;
            set_user_timeout(self.tcp(), wanted);
        }
    }
}

fn set_user_timeout(stream: &TcpStream, timeout: Duration) {
    let timeout = (!timeout.is_zero()).then_some(timeout);
    // A socket that refuses has ended, which its next use tells.
    let _ = SockRef::from(stream).set_tcp_user_timeout(timeout);
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        let polled = match &mut this.carrier {
            Carrier::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Carrier::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        this.ear.hear(&buf.filled()[start..]);
        polled
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.settle();
        match &mut this.carrier {
            Carrier::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Carrier::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.settle();
        match (&mut this.carrier, bufs) {
            // A plain send is the cheaper call.
            (Carrier::Plain(tcp), [one]) => Pin::new(tcp).poll_write(cx, one),
            (Carrier::Plain(tcp), _) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            (Carrier::Tls(tls), _) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Carrier::Plain(tcp) => tcp.is_write_vectored(),
            Carrier::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carrier {
            Carrier::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Carrier::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carrier {
            Carrier::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Carrier::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
