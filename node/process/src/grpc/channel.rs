//! Dialling a member.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::incoming::io_reason;
use crate::identity::Identity;
use crate::tls::{TlsDir, identity_of};

/// How a member is dialled, and how soon it is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelOptions {
    /// The longest time for a TCP connection, and again for the handshake.
    pub connect_timeout: Duration,
    /// How often a silent connection is asked whether it lives.
    pub keep_alive_interval: Duration,
    /// How long the answer may take.
    pub keep_alive_timeout: Duration,
    /// The slot that must answer, if it matters.
    pub expected_slot: Option<u64>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            keep_alive_interval: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(1),
            expected_slot: None,
        }
    }
}

/// An address that cannot be dialled at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address {address:?}: {reason}")]
pub struct ChannelError {
    address: String,
    reason: String,
}

/// Why there is no connection to a member.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("connect to {address}")]
    Tcp {
        /// Where to.
        address: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// Nothing answered.
    #[error("connect to {address}: no answer within {after:?}")]
    Timeout {
        /// Where to.
        address: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Somebody answered, and it is not whom we trust, or it does not trust us.
    #[error("connect to {address}: {reason}")]
    Handshake {
        /// Where to.
        address: String,
        /// Why not.
        reason: String,
    },
    /// Another member answered.
    #[error("connect to {address}: its certificate is {found}, not dovetail://member/{expected}")]
    OtherMember {
        /// Where to.
        address: String,
        /// Who should be there.
        expected: u64,
        /// Who is.
        found: Identity,
    },
}

/// A channel to the member at `HOST:PORT`, which is dialled when it is first used.
///
/// It has to be called inside of a tokio runtime.
pub fn channel(tls: &TlsDir, address: &str) -> Result<Channel, ChannelError> {
    channel_with(tls, address, &ChannelOptions::default())
}

/// As [`channel`], with other times, or for one slot only.
pub fn channel_with(
    tls: &TlsDir,
    address: &str,
    options: &ChannelOptions,
) -> Result<Channel, ChannelError> {
    let invalid =
        |reason: &str| ChannelError { address: address.to_owned(), reason: reason.to_owned() };
    let uri: Uri = format!("http://{address}")
        .parse()
        .map_err(|error| invalid(&format!("not HOST:PORT: {error}")))?;
    let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
        return Err(invalid("not HOST:PORT"));
    };
    if port == 0 || uri.path() != "/" || uri.query().is_some() || address.contains('@') {
        return Err(invalid("not HOST:PORT"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let server_name = ServerName::try_from(host.clone())
        .map_err(|_| invalid("the host is neither a name nor an IP address"))?;
    let connector = Connector {
        tls: tls.clone(),
        address: address.to_owned(),
        host,
        port,
        server_name,
        options: options.clone(),
    };
    let endpoint = Endpoint::from(uri)
        .http2_keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// What a failed call says to an operator: why there is no connection, or the answer.
pub fn describe(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return crate::chain(error);
        }
        // The connection broke off: the innermost cause is the one that says why.
        if let Some(refused) = error.downcast_ref::<io::Error>() {
            return crate::chain(refused);
        }
        cause = error.source();
    }
    if status.message().is_empty() {
        status.code().to_string()
    } else {
        status.message().to_owned()
    }
}

#[derive(Clone, Debug)]
struct Connector {
    tls: TlsDir,
    address: String,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    options: ChannelOptions,
}

impl Connector {
    async fn connect(self) -> Result<TokioIo<MemberIo>, ConnectError> {
        let Self { tls, address, host, port, server_name, options } = self;
        let after = options.connect_timeout;
        let timed_out = || ConnectError::Timeout { address: address.clone(), after };
        let tcp = tokio::time::timeout(after, TcpStream::connect((host.as_str(), port)))
            .await
            .map_err(|_| timed_out())?
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            .map_err(|error| ConnectError::Tcp { address: address.clone(), error })?;
        let refused = |reason| ConnectError::Handshake { address: address.clone(), reason };
        let stream = tokio::time::timeout(
            after,
            TlsConnector::from(tls.client_config()).connect(server_name, tcp),
        )
        .await
        .map_err(|_| timed_out())?
        .map_err(|error| refused(io_reason(&error)))?;
        if let Some(expected) = options.expected_slot {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let found = certificate
                .ok_or_else(|| "it showed no certificate".to_owned())
                .and_then(identity_of)
                .map_err(refused)?;
            if found.slot() != Some(expected) {
                return Err(ConnectError::OtherMember { address, expected, found });
            }
        }
        Ok(TokioIo::new(MemberIo { stream, address }))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<MemberIo>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// A connection to a member.
///
/// In TLS 1.3 a server refuses a client's certificate only after the client's handshake
/// is done, so the refusal arrives as a read error, which is put into words here.
#[derive(Debug)]
struct MemberIo {
    stream: TlsStream<TcpStream>,
    address: String,
}

impl AsyncRead for MemberIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        read.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {}", self.address, io_reason(&error)))
        })
    }
}

impl AsyncWrite for MemberIo {
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
