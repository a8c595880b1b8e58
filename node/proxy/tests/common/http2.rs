//! An application that speaks HTTP/2 in plain, frame by frame, and a client of the proxy that does.

use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What an application saw of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Begun,
    Ended,
    /// Reset by the other side, with this code.
    Reset(Reason),
}

/// What the streams of an application share.
#[derive(Debug)]
struct Log {
    heads: Mutex<Vec<Request<()>>>,
    events: mpsc::UnboundedSender<Event>,
}

/// An application that speaks HTTP/2 by prior knowledge.
///
/// `/echo` sends data back as it comes and its trailers at the end, `/hold` answers and
/// then says nothing, `/late` does not answer at all, `/bytes/N` sends so many, `/reset/N`
/// resets with that code, `/broken/N` does within its body, `/refuse` refuses the stream, `/bye` answers and ends the
/// connection gracefully, `/hints` says 100, 102 and 103 first, `/hints/reset` 103 and then resets, anything else is
/// answered at once.
pub struct Http2App {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub events: mpsc::UnboundedReceiver<Event>,
    log: Arc<Log>,
    job: tokio::task::JoinHandle<()>,
}

impl Http2App {
    pub async fn start(streams_max: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (tell, events) = mpsc::unbounded_channel();
        let log = Arc::new(Log { heads: Mutex::default(), events: tell });
        let connections = Arc::<AtomicUsize>::default();
        let job = tokio::spawn({
            let (log, connections) = (Arc::clone(&log), Arc::clone(&connections));
            async move {
                let mut open = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::Relaxed);
                    open.spawn(serve(stream, streams_max, Arc::clone(&log)));
                }
            }
        });
        Self { address, connections, events, log, job }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The heads that it saw, in order.
    pub fn heads(&self) -> Vec<Request<()>> {
        self.log.heads.lock().expect("not poisoned").clone()
    }

    pub async fn event(&mut self) -> Event {
        let event = tokio::time::timeout(super::DEADLINE, self.events.recv()).await;
        event.expect("in time").expect("it lives")
    }
}

impl Drop for Http2App {
    fn drop(&mut self) {
        self.job.abort();
    }
}

/// Serves one connection, whatever carries it.
pub async fn serve_over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let (events, _nobody) = mpsc::unbounded_channel();
    serve(stream, 100, Arc::new(Log { heads: Mutex::default(), events })).await;
}

async fn serve<S>(stream: S, streams_max: u32, log: Arc<Log>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let builder = h2::server::Builder::new().max_concurrent_streams(streams_max).clone();
    let Ok(mut conn) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut open = tokio::task::JoinSet::new();
    while let Some(Ok((request, respond))) = conn.accept().await {
        let (parts, body) = request.into_parts();
        log.heads.lock().expect("not poisoned").push(Request::from_parts(parts.clone(), ()));
        let path = parts.uri.path().to_owned();
        if path == "/bye" {
            conn.graceful_shutdown();
        }
        let log = Arc::clone(&log);
        open.spawn(async move {
            let _ = log.events.send(Event::Begun);
            let event = match answer(&path, body, respond).await {
                Ok(()) => Event::Ended,
                Err(error) => Event::Reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
            };
            let _ = log.events.send(event);
        });
    }
}

async fn answer(
    path: &str,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let rest = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.parse::<u32>().ok());
    if path == "/late" {
        return Err(std::future::poll_fn(|cx| respond.poll_reset(cx)).await?.into());
    }
    if let Some(code) = rest("/reset/") {
        respond.send_reset(code.into());
        return Ok(());
    }
    if path.starts_with("/hints") {
        let codes: &[u16] = if path == "/hints" { &[100, 102, 103, 103] } else { &[103] };
        for &status in codes {
            let hint = Response::builder().status(status).header("link", "</style.css>");
            respond.send_informational(hint.body(()).expect("a head"))?;
        }
    }
    if path == "/hints/reset" {
        // The hint is on its way before the reset is.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    if path == "/refuse" {
        respond.send_reset(Reason::REFUSED_STREAM);
        return Ok(());
    }
    let head = Response::builder().header("content-type", "application/grpc");
    let head = head.header("trailer", "grpc-status").body(()).expect("a head");
    let mut send = respond.send_response(head, false)?;
    if let Some(code) = rest("/broken/") {
        send_all(&mut send, Bytes::from("begun")).await?;
        // The piece is on its way before the reset is.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        send.send_reset(code.into());
        return Ok(());
    }
    if path == "/hold" {
        return Err(std::future::poll_fn(|cx| send.poll_reset(cx)).await?.into());
    }
    if let Some(count) = rest("/bytes/") {
        let zeros = Bytes::from(vec![b'0'; usize::try_from(count).expect("it fits")]);
        send_all(&mut send, zeros).await?;
    }
    let mut trailers = HeaderMap::new();
    if path == "/echo" {
        while let Some(data) = body.data().await {
            let data = data?;
            let _ = body.flow_control().release_capacity(data.len());
            send_all(&mut send, data).await?;
        }
        trailers = body.trailers().await?.unwrap_or_default();
    }
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    send.send_trailers(trailers)
}

/// Sends all of `data`, as there is room for it.
pub async fn send_all(send: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
        let room = room.transpose()?.ok_or(h2::Error::from(Reason::CANCEL))?;
        let piece = data.split_to(room.min(data.len()));
        send.send_data(piece, false)?;
    }
    Ok(())
}

/// A client of the proxy that speaks HTTP/2 by prior knowledge.
pub struct Http2Client {
    pub sender: h2::client::SendRequest<Bytes>,
    job: tokio::task::JoinHandle<()>,
}

impl Http2Client {
    pub async fn connect(proxy: SocketAddr) -> Self {
        let stream = TcpStream::connect(proxy).await.expect("connected");
        let (sender, conn) = h2::client::handshake(stream).await.expect("HTTP/2");
        let job = tokio::spawn(async move {
            // How it ends is seen by its requests.
            let _ = conn.await;
        });
        Self { sender, job }
    }

    /// Begins a request of gRPC's kind.
    pub async fn begin(&mut self, path: &str, end: bool) -> Begun {
        self.begin_with(path, end, "application/grpc").await
    }

    pub async fn begin_with(&mut self, path: &str, end: bool, content_type: &str) -> Begun {
        let request = Request::post(format!("http://shop.example{path}"))
            .header("content-type", content_type)
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let mut sender = self.sender.clone().ready().await.expect("it takes requests");
        let (answer, send) = sender.send_request(request, end).expect("sent");
        Begun { answer, send }
    }
}

impl Drop for Http2Client {
    fn drop(&mut self) {
        self.job.abort();
    }
}

/// A request under way.
pub struct Begun {
    pub answer: h2::client::ResponseFuture,
    pub send: SendStream<Bytes>,
}

impl Begun {
    pub async fn head(&mut self) -> Result<Response<RecvStream>, h2::Error> {
        tokio::time::timeout(super::DEADLINE, &mut self.answer).await.expect("in time")
    }

    /// The interim answers, and the head of the answer.
    pub async fn heads(&mut self) -> (Vec<Response<()>>, Result<Response<RecvStream>, h2::Error>) {
        let mut early = Vec::new();
        let answer = std::future::poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(head))) = self.answer.poll_informational(cx) {
                early.push(head);
            }
            Pin::new(&mut self.answer).poll(cx)
        });
        let answer = tokio::time::timeout(super::DEADLINE, answer).await.expect("in time");
        (early, answer)
    }
}

/// The next piece of a body, in time.
pub async fn data(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = tokio::time::timeout(super::DEADLINE, body.data()).await.expect("in time");
    if let Some(Ok(data)) = &data {
        let _ = body.flow_control().release_capacity(data.len());
    }
    data
}

/// All that is left of a body, and its trailers.
pub async fn rest(body: &mut RecvStream) -> Result<(usize, HeaderMap), h2::Error> {
    let mut count = 0;
    while let Some(piece) = data(body).await {
        count += piece?.len();
    }
    Ok((count, body.trailers().await?.unwrap_or_default()))
}
