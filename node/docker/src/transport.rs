//! One small HTTP client for the engine's socket, shared with bollard.
//!
//! bollard's own transports cannot be asked for a type it does not know, and its
//! `Task` knows no addresses, so the lists go through this client directly.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::Uri;
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{DockerTls, DockerUrl};

/// Spelled as bollard spells its requests' body, so that both share one client.
pub(crate) type RequestBody = Either<
    Full<Bytes>,
    StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>>,
>;
pub(crate) type HttpClient = Client<Connector, RequestBody>;

/// Shorter than the engine's own limit for idle connections.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// Lists in flight at once, and the event stream.
const POOL_MAX: usize = 4;

/// A client that dials `url` whatever host the request's URI names.
pub(crate) fn client(url: DockerUrl, tls: Option<DockerTls>) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_MAX)
        .build(Connector { url, tls })
}

/// Dials the engine.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    url: DockerUrl,
    tls: Option<DockerTls>,
}

impl Connector {
    async fn dial(self) -> io::Result<EngineStream> {
        let io: Box<dyn Io> = match self.url {
            DockerUrl::Unix(path) => Box::new(UnixStream::connect(path).await?),
            DockerUrl::Tcp { host, port } => {
                let port = DockerUrl::port_or_default(port, self.tls.is_some());
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                match self.tls {
                    None => Box::new(stream),
                    Some(tls) => {
                        let config = crate::tls::client(&tls).map_err(io::Error::other)?;
                        let name = ServerName::try_from(host).map_err(io::Error::other)?;
                        let connector = tokio_rustls::TlsConnector::from(config);
                        Box::new(connector.connect(name, stream).await?)
                    }
                }
            }
        };
        Ok(EngineStream(TokioIo::new(io)))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = EngineStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<EngineStream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to the engine, whatever carries it.
pub(crate) struct EngineStream(TokioIo<Box<dyn Io>>);

impl Connection for EngineStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for EngineStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for EngineStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
