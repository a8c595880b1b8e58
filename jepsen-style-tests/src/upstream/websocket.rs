//! WebSockets of an upstream.

use std::future::Future;

use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::{broadcast, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::answer::Body;

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Switches a request over to WebSocket and lets `serve` have it; 426 to any other.
pub(super) fn switch<F, Fut>(mut request: Request<Incoming>, serve: F) -> Response<Body>
where
    F: FnOnce(Socket) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let mut answer = Response::new(Body::default());
    let upgrade = HeaderValue::from_static("websocket");
    answer.headers_mut().insert(UPGRADE, upgrade);
    let asked = request.headers();
    let websocket = asked.get(UPGRADE).is_some_and(|to| to.as_bytes() == b"websocket");
    let accept = asked.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = accept.and_then(|accept| HeaderValue::from_str(&accept).ok());
    let (true, Some(accept)) = (websocket, accept) else {
        *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return answer;
    };
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = asked.get(SEC_WEBSOCKET_PROTOCOL) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // A client that went away meanwhile wants no socket.
        if let Ok(upgraded) = upgraded.await {
            let io = TokioIo::new(upgraded);
            serve(WebSocketStream::from_raw_socket(io, Role::Server, None).await).await;
        }
    });
    answer
}

/// Sends a greeting, and then everything back until either side ends it.
pub(super) async fn echo(
    mut socket: Socket,
    greeting: Option<Message>,
    mut stopped: watch::Receiver<bool>,
) {
    if let Some(greeting) = greeting
        && socket.send(greeting).await.is_err()
    {
        return;
    }
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let Some(Ok(message)) = message else { return };
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Sends what anybody says to everybody.
pub(super) async fn chat(
    mut socket: Socket,
    chat: broadcast::Sender<Message>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut heard = chat.subscribe();
    loop {
        let message = tokio::select! {
            said = socket.next() => Err(said),
            heard = heard.recv() => Ok(heard),
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        match message {
            Ok(Ok(heard)) => {
                if socket.send(heard).await.is_err() {
                    return;
                }
            }
            // Nobody listening is not an error: this one hears itself.
            Err(Some(Ok(said))) if said.is_text() => _ = chat.send(said),
            Ok(Err(_)) | Err(Some(Ok(_))) => {}
            Err(Some(Err(_)) | None) => return,
        }
    }
}
