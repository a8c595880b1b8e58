//! An upstream alone.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::http;

const WAIT: Duration = Duration::from_secs(5);

async fn upstream() -> Upstream {
    Upstream::start("blue", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

#[tokio::test]
async fn it_says_who_it_is_and_what_it_was_asked() {
    let blue = upstream().await;
    assert_eq!(http::who_answers(blue.addr(), "a.example", "/").await.unwrap(), "blue");
    let seen = http::get(blue.addr(), "a.example", "/app/headers?x=1", WAIT).await.unwrap();
    let seen: serde_json::Value = serde_json::from_slice(seen.body()).unwrap();
    assert_eq!(seen["headers"]["host"][0], "a.example");
    assert_eq!(seen["path"], "/app/headers");
    assert_eq!(seen["query"], "x=1");
    assert_eq!(seen["scheme"], "http");
    let echo = ::http::Request::post("/echo").body(Full::from("hello")).unwrap();
    assert_eq!(http::send(blue.addr(), echo, WAIT).await.unwrap().body(), "hello");
    let teapot = http::get(blue.addr(), "a", "/status/418", WAIT).await.unwrap();
    assert_eq!(teapot.status().as_u16(), 418);
    let ping = http::get(blue.addr(), "a", "/ping", WAIT).await.unwrap();
    assert!(ping.headers()["set-cookie"].to_str().unwrap().starts_with("session="));
    assert_eq!(blue.requests(), 5);
}

#[tokio::test]
async fn it_answers_with_another_status_while_it_is_told_to() {
    let blue = upstream().await;
    blue.set_status(Some(503));
    let broken = http::get(blue.addr(), "a", "/", WAIT).await.unwrap();
    assert_eq!(broken.status().as_u16(), 503);
    blue.set_status(None);
    http::who_answers(blue.addr(), "a", "/").await.unwrap();
}

#[tokio::test]
async fn events_come_one_by_one() {
    let blue = upstream().await;
    let events = http::get(blue.addr(), "a", "/events/3", WAIT).await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert_eq!(*events.body(), Bytes::from("data: 0\n\ndata: 1\n\ndata: 2\n\n"));
}

#[tokio::test]
async fn websockets_echo_and_chat() {
    let blue = upstream().await;
    let mut sockets = Vec::new();
    for path in ["ws", "chat", "chat"] {
        let stream = TcpStream::connect(blue.addr()).await.unwrap();
        let url = format!("ws://a.example/{path}");
        sockets.push(tokio_tungstenite::client_async(url, stream).await.unwrap().0);
    }
    let [echo, anna, bert] = &mut sockets[..] else { unreachable!("three were opened") };
    echo.send(Message::text("hello")).await.unwrap();
    assert_eq!(echo.next().await.unwrap().unwrap(), Message::text("hello"));
    anna.send(Message::text("hello, Bert")).await.unwrap();
    for side in [anna, bert] {
        assert_eq!(side.next().await.unwrap().unwrap(), Message::text("hello, Bert"));
    }
    blue.kill().await;
    assert!(!matches!(echo.next().await, Some(Ok(Message::Text(_)))));
}

#[tokio::test]
async fn a_graceful_stop_finishes_what_was_begun() {
    let blue = upstream().await;
    let addr = blue.addr();
    let request = tokio::spawn(async move { http::get(addr, "a", "/delay/200", WAIT).await });
    crate::eventually(WAIT, || {
        let requests = blue.requests();
        async move { if requests == 1 { Ok(()) } else { Err("no request yet".into()) } }
    })
    .await;
    blue.stop(WAIT).await;
    assert_eq!(request.await.unwrap().unwrap().status().as_u16(), 200);
    assert!(http::get(addr, "a", "/", WAIT).await.is_err());
}

#[tokio::test]
async fn a_kill_cuts_off_what_was_begun() {
    let blue = upstream().await;
    let addr = blue.addr();
    let request = tokio::spawn(async move { http::get(addr, "a", "/delay/60000", WAIT).await });
    crate::eventually(WAIT, || {
        let requests = blue.requests();
        async move { if requests == 1 { Ok(()) } else { Err("no request yet".into()) } }
    })
    .await;
    blue.kill().await;
    assert!(request.await.unwrap().is_err());
}
