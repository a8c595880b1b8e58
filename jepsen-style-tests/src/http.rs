//! One HTTP request at a time, each on a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Sends `request` to `addr`, whatever its URI says, and reads the whole answer.
pub async fn send(
    addr: SocketAddr,
    request: Request<Full<Bytes>>,
    timeout: Duration,
) -> Result<Response<Bytes>, String> {
    let exchange = async {
        let stream = TcpStream::connect(addr).await.map_err(|e| format!("connect: {e}"))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("handshake: {e}"))?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|e| format!("send: {e}"))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|e| format!("body: {e}"))?.to_bytes();
        connection.abort();
        Ok(Response::from_parts(head, body))
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

/// GET `path` of `host` through whatever listens on `addr`.
pub async fn get(
    addr: SocketAddr,
    host: &str,
    path: &str,
    timeout: Duration,
) -> Result<Response<Bytes>, String> {
    let request = Request::get(path)
        .header(http::header::HOST, host)
        .body(Full::default())
        .map_err(|error| error.to_string())?;
    send(addr, request, timeout).await
}

/// The name of the upstream that answered 200, or what was answered instead.
pub async fn who_answers(addr: SocketAddr, host: &str, path: &str) -> Result<String, String> {
    let answer = get(addr, host, path, Duration::from_secs(2)).await?;
    answered_by(&answer).map_err(|reason| format!("{addr} for {host}{path}: {reason}"))
}

/// The upstream's name in an answer with status 200.
pub(crate) fn answered_by<B>(answer: &Response<B>) -> Result<String, String> {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    if answer.status() != StatusCode::OK {
        let reason = header("x-dovetail-error").map_or(String::new(), |e| format!(" ({e})"));
        return Err(format!("status {}{reason}", answer.status().as_u16()));
    }
    Ok(header(crate::upstream::ANSWERED_BY).unwrap_or("nobody").to_owned())
}
