//! One client's connection: which protocol it speaks, how long it may be silent, how it ends.

mod http2;
mod reply;

pub use reply::Reply;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dovetail_routing::names::SecretName;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::body::{ResponseBody, Streaming};
use crate::carrier::Carrier;
use crate::client_body::ClientBody;
use crate::forward::{Answered, AnsweredBody, forward};
use crate::opening::{client_of, open, sniff};
use crate::passthrough::{self, Passthrough};
use crate::record::Record;
use crate::respond::ProxyError;
use crate::stream::{ClientStream, Expiry, Socket, Wire, is_closed};
use crate::tls::handshake::Opened;
use crate::tunnel::{self, Tunnel};
use crate::worker::{Phase, Port, Worker};

/// Longest head of a request, in bytes, unless configured; and what may be configured.
const HEAD_BYTES_MAX: u32 = 16 * 1_024;
const HEAD_BYTES_LIMITS: std::ops::RangeInclusive<u64> = 1_024..=64 * 1_024;
/// How much of a body may wait in memory for the slower side.
const BUFFER_BYTES_MAX: usize = 256 * 1_024;
/// Most bytes, and longest time, of a refused request that are still read, so that the
/// client reads the refusal before it sees the connection end.
const LINGER_BYTES_MAX: usize = 512 * 1_024;
const LINGER_MAX: Duration = Duration::from_secs(1);

/// What all requests of a connection share.
pub struct Downstream {
    pub worker: Rc<Worker>,
    pub wire: Rc<Wire>,
    /// Who the connection comes from: a trusted proxy, perhaps.
    pub peer: SocketAddr,
    /// The client: the peer, or whom a trusted proxy's PROXY header names.
    pub client: SocketAddr,
    /// Present when the client speaks TLS to this proxy.
    pub tls: Option<ClientTls>,
    /// The client's address, as headers say it.
    pub client_ip: HeaderValue,
    tunnel: RefCell<Option<Tunnel>>,
}

/// What a TLS handshake settled for all requests of its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The authorities by which the client's certificate was checked; requests for
    /// hosts with others are misdirected (421).
    pub client_ca: Option<SecretName>,
    /// For the access log: the version as OpenSSL calls it, the cipher as the standard
    /// does, and the name that was asked for.
    pub protocol: &'static str,
    pub cipher: Option<Arc<str>>,
    pub server_name: Option<Arc<str>>,
}

impl std::fmt::Debug for Downstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Downstream({})", self.client)
    }
}

/// Serves a connection until it ends.
pub async fn run(worker: Rc<Worker>, tcp: TcpStream, peer: SocketAddr, port: Port) {
    let mut phase = worker.phase();
    // A socket that refuses has ended, which its next use tells.
    let _ = tcp.set_nodelay(true);
    let deadline = Instant::now() + worker.shared.limits.head_timeout;
    let Some((client, held)) = client_of(&worker, &tcp, peer, deadline, &mut phase).await else {
        return;
    };
    let Some(_place) = worker.shared.clients.enter(&worker.shared, peer, client) else {
        worker.telemetry.connection_ended("too_many_of_client");
        return;
    };
    let (carrier, first, http2, tls) = match port {
        Port::Http => {
            let patience = worker.patience();
            let sniffed = sniff(&tcp, held, &patience, &mut phase).await;
            let Some((first, http2)) = sniffed else { return };
            (Carrier::Plain(tcp), first, http2, None)
        }
        Port::Https => match open(&worker, tcp, held, client, deadline, &mut phase).await {
            Some(Opened::Terminated { stream, tls, http2 }) => {
                (Carrier::Tls(stream), Bytes::new(), http2, Some(tls))
            }
            Some(Opened::Passthrough { table, entry, tcp, raw, name }) => {
                let stream = Passthrough { table, entry, client, tcp, raw, name };
                return passthrough::run(&worker, stream, &mut phase).await;
            }
            None => return,
        },
    };
    let stream = ClientStream::new(carrier, first, http2);
    let ip = client.ip().to_canonical().to_string();
    let down = Rc::new(Downstream {
        wire: stream.wire(),
        peer,
        client,
        tls,
        client_ip: HeaderValue::from_str(&ip).unwrap_or_else(|_| HeaderValue::from_static("-")),
        tunnel: RefCell::default(),
        worker,
    });
    if http2 {
        http2::serve(down, stream, phase).await
    } else {
        serve_http1(down, stream, phase).await
    }
}

async fn serve_http1(
    down: Rc<Downstream>,
    stream: ClientStream,
    mut phase: watch::Receiver<Phase>,
) {
    let socket = stream.socket();
    let service = {
        let down = Rc::clone(&down);
        service_fn(move |request: Request<Incoming>| {
            let answer = answer(Rc::clone(&down), request.map(ClientBody::Http1));
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let mut conn = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(down.head_bytes_max() as usize)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let ended = {
        let tell = |conn: Pin<&mut _>, word| match word {
            Word::Goodbye => http1::Connection::graceful_shutdown(conn),
            Word::Probe => {}
        };
        drive(&down, Pin::new(&mut conn), &socket, &mut phase, Phase::Closing, tell).await
    };
    drop(socket);
    if ended.is_none() {
        return;
    }
    if let Some(violation) = down.wire.violation() {
        down.worker.telemetry.violation(violation.kind());
        if down.wire.head_was_refused() {
            // hyper answered it; no request came of it that would be logged.
            let mut record = down.record(&http::Method::default(), &http::Uri::default());
            record.fail(&ProxyError::Framing(violation));
        }
    }
    if let Some(tunnel) = down.tunnel.take() {
        let parts = conn.into_parts();
        if let Some((tcp, held)) = parts.io.into_inner().into_parts() {
            let early = [parts.read_buf, held];
            tunnel::run(tunnel, tcp, early, &mut phase).await;
        }
    } else if down.wire.is_mid_request()
        && let Some((tcp, _)) = conn.into_parts().io.into_inner().into_parts()
    {
        linger(tcp).await;
    }
}

/// What [`drive`] has to say to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It takes no more requests, and ends once those under way are answered.
    Goodbye,
    /// Its client is asked for a sign of life.
    Probe,
}

/// Runs a connection under the clock and the drain. Returns `None` if it was broken off.
async fn drive<C: Future>(
    down: &Downstream,
    mut conn: Pin<&mut C>,
    socket: &Socket,
    phase: &mut watch::Receiver<Phase>,
    goodbye_from: Phase,
    tell: impl Fn(Pin<&mut C>, Word),
) -> Option<C::Output> {
    let wire = &down.wire;
    let mut told = false;
    let start = Instant::now() + down.worker.patience().head;
    let mut timer = pin!(tokio::time::sleep_until(start.into()));
    loop {
        tokio::select! {
            biased;
            ended = conn.as_mut() => return Some(ended),
            changed = phase.changed() => {
                let now = if changed.is_err() { Phase::Cut } else { *phase.borrow_and_update() };
                if now == Phase::Cut {
                    down.worker.telemetry.connection_ended("cut_off");
                    return None;
                }
                if now >= goodbye_from && !told {
                    told = true;
                    tell(conn.as_mut(), Word::Goodbye);
                }
            }
            () = timer.as_mut() => {
                let now = Instant::now();
                wire.note_closed(wire.in_flight() > 0 && is_closed(socket));
                match wire.expiry(&down.worker.patience(), now) {
                    Expiry::Until(next) => timer.as_mut().reset(next.into()),
                    Expiry::Probe => {
                        tell(conn.as_mut(), Word::Probe);
                        // There are other limits to look at.
                        timer.as_mut().reset(now.into());
                    }
                    Expiry::Idle => {
                        // Told once, it ends by itself; a client that never reads is cut off.
                        if told {
                            return None;
                        }
                        told = true;
                        tell(conn.as_mut(), Word::Goodbye);
                        timer.as_mut().reset((now + LINGER_MAX).into());
                    }
                    Expiry::Stalled(at) => {
                        down.worker.telemetry.connection_ended(at);
                        return None;
                    }
                }
            }
        }
    }
}

impl Downstream {
    /// Whether a request for this host may come over this connection: see [`TlsTable::may_serve`].
    ///
    /// [`TlsTable::may_serve`]: crate::tls::TlsTable::may_serve
    pub fn may_serve(&self, host: &str) -> bool {
        let Some(tls) = &self.tls else { return true };
        self.worker.shared.certificates.pin().may_serve(host, tls.client_ca.as_ref())
    }

    /// Longest head of a request, in bytes, for connections that begin now.
    fn head_bytes_max(&self) -> u32 {
        let table = self.worker.shared.table.pin();
        let configured = table.and_then(|table| table.snapshot().options.client_header_bytes_max);
        let (least, most) = HEAD_BYTES_LIMITS.into_inner();
        let clamped = configured.map(|bytes| bytes.clamp(least, most));
        clamped.and_then(|bytes| bytes.try_into().ok()).unwrap_or(HEAD_BYTES_MAX)
    }

    fn record(&self, method: &http::Method, uri: &http::Uri) -> Box<Record> {
        let (method, uri) = (method.clone(), uri.clone());
        Box::new(Record::new(&self.worker, &self.wire, self.client, method, uri))
    }
}

/// Answers one request, always.
async fn answer(down: Rc<Downstream>, request: Request<ClientBody>) -> Response<ResponseBody> {
    let (parts, incoming) = request.into_parts();
    let http2 = parts.version == Version::HTTP_2;
    let mut record = down.record(&parts.method, &parts.uri);
    let mut response = match forward(&down, &mut record, parts, incoming).await {
        Ok(Answered { head, body }) => {
            record.answered(head.status, &head.headers);
            let body = match body {
                AnsweredBody::Empty => ResponseBody::Own { text: "", record: Some(record) },
                AnsweredBody::Streaming(received, silence_max) => {
                    ResponseBody::Streaming(Box::new(Streaming::new(received, silence_max, record)))
                }
                AnsweredBody::Tunnel(upstream, early, idle_max) => {
                    *down.tunnel.borrow_mut() = Some(Tunnel { upstream, early, idle_max, record });
                    ResponseBody::Own { text: "", record: None }
                }
            };
            Response::from_parts(head, body)
        }
        Err(error) => {
            record.fail(&error);
            tracing::debug!(error = %dovetail_process::chain(&error), "request refused");
            let (head, text) = if record.grpc { error.grpc_response() } else { error.response() };
            record.answered(head.status(), head.headers());
            let body = ResponseBody::Own { text, record: Some(record) };
            head.map(|()| body)
        }
    };
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    down.wire.decide_upgrade(switching);
    if http2 {
        response.headers_mut().remove(CONNECTION);
    } else if down.worker.is_lame() && !switching {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads on for a moment after a refusal: closing at once would make the kernel reset
/// the connection, and the client would never see why.
pub async fn linger(mut tcp: impl AsyncRead + AsyncWrite + Unpin) {
    let drained = async {
        // An error here is the end as well.
        let _ = tcp.shutdown().await;
        let mut waste = [0; 8 * 1_024];
        let mut seen = 0;
        while seen < LINGER_BYTES_MAX {
            match tcp.read(&mut waste).await {
                Ok(0) | Err(_) => return,
                Ok(count) => seen += count,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_MAX, drained).await;
}
