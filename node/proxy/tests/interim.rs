//! Interim answers: what of 1xx reaches which client, and in which order.

mod common;

use std::time::Duration;

use common::upstream::{App, Script};
use common::{Proxy, RawClient, raw, route, snapshot};

const HINTS: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\
    Link: </style.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
    HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn early_hints_reach_clients_of_http_1_1_before_the_answer() {
    let script = Script::start(HINTS, false).await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[script.address])]));
    let mut client = RawClient::connect(proxy.address).await;
    // Again and again: on connections that are used again, on both sides.
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(client.answer(false).await.expect("an answer"));
        }
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [102, 103, 200]);
        assert_eq!(answers[1].header("link"), Some("</style.css>; rel=preload"));
        assert_eq!(answers[1].header("x-hop"), None, "{:?}", answers[1]);
        assert_eq!(answers[1].header("x-upstream-addr"), None, "it is passed on, not answered");
        assert_eq!(answers[2].body, "ok");
    }
    assert_eq!(script.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    // Never to one that does not know them.
    let request = b"GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n";
    let answer = raw(proxy.address, request).await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && !answer.contains("103"), "{answer}");
}

#[tokio::test]
async fn pipelined_answers_stay_in_order_whatever_comes_between() {
    let script = Script::start(HINTS, false).await;
    let app = App::start("app").await;
    let routes = vec![
        route("hints.example", "/", &[script.address]),
        route("shop.example", "/", &[app.address]),
    ];
    let proxy = Proxy::start(&snapshot(1, routes));
    let get = |host: &str, target: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut client = RawClient::connect(proxy.address).await;
    // The first answer is too large for the kernel to take while nobody reads it.
    let all = get("shop.example", "/bytes/20000000")
        + &get("hints.example", "/").repeat(3)
        + &get("shop.example", "/last");
    client.send(all).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let first = client.answer(false).await.expect("an answer");
    assert_eq!((first.status, first.body.len()), (200, 20_000_000));
    let (mut early, mut bodies) = (0, Vec::new());
    while bodies.len() < 4 {
        let answer = client.answer(false).await.expect("an answer");
        match answer.status {
            102 | 103 => early += 1,
            200 => bodies.push(answer.body),
            status => panic!("{status}"),
        }
    }
    assert_eq!(bodies, ["ok", "ok", "ok", "app"]);
    assert!(early <= 6, "{early}");
}

#[tokio::test]
async fn a_client_of_http_2_gets_the_answer_alone() {
    let script = Script::start(HINTS, false).await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[script.address])]));
    let mut client = common::http2::Http2Client::connect(proxy.address).await;
    for _ in 0..3 {
        let mut begun = client.begin_with("/", true, "text/plain").await;
        let mut body = begun.head().await.expect("an answer").into_body();
        assert_eq!(common::http2::data(&mut body).await.expect("more").expect("data"), "ok");
    }
}
