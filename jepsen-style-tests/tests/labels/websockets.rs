//! WebSockets, and what else lasts (A32, A33).

use dovetail_jepsen::cluster::Cluster;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::lab::{DEADLINE, Lab};

type Socket = WebSocketStream<TcpStream>;

async fn open(cluster: &Cluster, proxy: u8, url: &str) -> Socket {
    let stream = TcpStream::connect(cluster.proxy_addr(proxy)).await.expect("it listens");
    let mut request = url.into_client_request().expect("a request");
    request.headers_mut().insert("origin", "http://elsewhere.example".parse().expect("text"));
    let (socket, answer) =
        tokio_tungstenite::client_async(request, stream).await.expect("it upgrades");
    assert_eq!(answer.status().as_u16(), 101);
    socket
}

async fn next(socket: &mut Socket) -> Message {
    let message = timeout(DEADLINE, socket.next()).await.expect("a message in time");
    message.expect("the socket is open").expect("a message")
}

/// A32. Interlock needs the label to upgrade; here it is accepted, and not needed.
pub(crate) async fn a32_two_users_of_a_chat_hear_each_other(lab: &Lab) {
    let _with = lab
        .publish("a32", 1, &[("hosts", "a32.example"), ("websocket_endpoints", "/chat,/ws")])
        .await;
    let _without = lab.publish("a32-plain", 1, &[("hosts", "a32-plain.example")]).await;
    for host in ["a32.example", "a32-plain.example"] {
        let url = format!("ws://{host}/chat");
        let mut anna = open(&lab.cluster, 1, &url).await;
        let mut bert = open(&lab.cluster, 2, &url).await;
        // Each hears itself once it is listening; then both are there.
        anna.send(Message::text("anna is here")).await.expect("sent");
        assert_eq!(next(&mut anna).await, Message::text("anna is here"));
        bert.send(Message::text("hello, Anna")).await.expect("sent");
        for side in [&mut anna, &mut bert] {
            // What Anna said may have reached Bert, too.
            let mut heard = next(side).await;
            if heard == Message::text("anna is here") {
                heard = next(side).await;
            }
            assert_eq!(heard, Message::text("hello, Anna"));
        }
    }
}

/// A32, further: what is sent comes back as it was, of any kind and size.
pub(crate) async fn a32_messages_cross_unchanged(lab: &Lab) {
    let _service = lab.publish("a32-echo", 2, &[("hosts", "a32-echo.example")]).await;
    let mut socket = open(&lab.cluster, 1, "ws://a32-echo.example/ws").await;
    let large: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    for message in [Message::text("grüß"), Message::binary(large), Message::text("")] {
        socket.send(message.clone()).await.expect("sent");
        assert_eq!(next(&mut socket).await, message);
    }
    socket.close(None).await.expect("closed");
    assert!(matches!(next(&mut socket).await, Message::Close(_)));
}

/// A33. NGINX's template loses Host and X-Forwarded-For here, and takes Origin away.
pub(crate) async fn a33_an_upgraded_request_carries_the_same_headers_as_any(lab: &Lab) {
    let _service = lab.publish("a33", 1, &[("hosts", "a33.example")]).await;
    let mut socket = open(&lab.cluster, 1, "ws://a33.example/ws?headers").await;
    let Message::Text(seen) = next(&mut socket).await else { panic!("no text") };
    let seen: serde_json::Value = serde_json::from_str(&seen).expect("JSON");
    assert_eq!(seen["host"][0], "a33.example", "{seen}");
    assert_eq!(seen["origin"][0], "http://elsewhere.example");
    for name in ["x-forwarded-for", "x-real-ip"] {
        assert_eq!(seen[name][0], "127.0.0.1", "{seen}");
    }
    assert_eq!(seen["x-forwarded-proto"][0], "http");
    assert!(seen["x-request-id"][0].is_string(), "{seen}");
}

/// Server-sent events arrive as they are sent: these would take half an hour together.
pub(crate) async fn events_arrive_one_by_one(lab: &Lab) {
    let _service = lab.publish("events", 1, &[("hosts", "events.example")]).await;
    let mut stream = TcpStream::connect(lab.cluster.proxy_addr(1)).await.expect("it listens");
    let request = "GET /events/100000 HTTP/1.1\r\nHost: events.example\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut seen = String::new();
    while !seen.contains("data: 2\n\n") {
        let mut piece = [0; 1_024];
        let read = timeout(DEADLINE, stream.read(&mut piece)).await.expect("events in time");
        let count = read.expect("the connection stays");
        assert_ne!(count, 0, "it ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
}
