//! Connections that are used again, requests that are repeated, and ends: on raw sockets.
//!
//! Where each rule on requests and connections is proven:
//!
//! | rule | test |
//! |---|---|
//! | lengths, transfer encodings, chunks, heads | `framing.rs` |
//! | HTTP/2 to HTTP/1.1 | `downgrade.rs` |
//! | hop-by-hop headers, forged ones, hosts, paths | `framing.rs`, `route_options.rs` |
//! | upgrades, and bytes behind them | `framing.rs`, `tls.rs`, `upstream_tls.rs` |
//! | PROXY headers, misdirected requests | `proxy_protocol.rs`, `client_authorities.rs` |
//! | interim answers | `interim.rs`, `framing.rs` (100) |
//! | bytes on an idle connection | `framing.rs` |
//! | a pooled connection that died | `forwarding.rs` |
//! | refused connections, any method | `forwarding.rs` |
//! | bodies left unread, answers before a body's end, bodies where none may be | here |
//! | nothing repeated after an answer began; a budget for what is | here |
//! | a task that left: idle connections end, requests go on | here |
//! | drain of HTTP/1.1 | `forwarding.rs`, `disk_copy.rs`; of HTTP/2 and tunnels: here |
//! | pools by TLS terms | `upstream_tls.rs` |
//! | slow and greedy clients | `framing.rs`, `limits.rs`, `floods.rs` |

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::frames::{END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, frame, request};
use common::upstream::{App, Script};
use common::{Proxy, RawClient, get, raw, route, snapshot, until};
use dovetail_routing::snapshot::Route;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn shop(upstreams: &[std::net::SocketAddr]) -> Route {
    route("shop.example", "/", upstreams)
}

#[tokio::test]
async fn a_body_that_nobody_read_is_no_request() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![shop(&[app.address])]));
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    let length = smuggled.len();
    // Refused before the body is looked at.
    for (line, host) in
        [("POST / HTTP/1.1", "other.example"), ("CONNECT shop.example:80 HTTP/1.1", "shop.example")]
    {
        let head = format!("{line}\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
        let mut client = RawClient::connect(proxy.address).await;
        client.send(head + smuggled).await;
        let answer = client.answer(false).await.expect("an answer");
        assert!(answer.status >= 400, "{answer:?}");
    }
    // The application answers before it reads, and what is left is not its next request.
    let head =
        format!("POST /early HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {length}\r\n\r\n");
    let mut client = RawClient::connect(proxy.address).await;
    client.send(&head).await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 417);
    // It may have ended by now, which is as good.
    let _ = client.stream.write_all(smuggled.as_bytes()).await;
    for _ in 0..5 {
        assert_eq!(get(proxy.address, "shop.example", "/next").await.status, 200);
    }
    // HTTP/1.0 without a length has no body, whatever follows.
    let request = format!("POST /old HTTP/1.0\r\nHost: shop.example\r\n\r\n{smuggled}");
    let answer = raw(proxy.address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    let targets: Vec<_> = app.seen().into_iter().map(|seen| seen.target).collect();
    assert!(!targets.iter().any(|target| target == "/smuggled"), "{targets:?}");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_leaves_no_connection_behind() {
    // Answers each head at once, and takes whatever comes for a head.
    let script = Script::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false).await;
    let proxy = Proxy::start(&snapshot(1, vec![shop(&[script.address])]));
    let head = "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 100000\r\n\r\nabc";
    for round in 1..4 {
        let mut client = RawClient::connect(proxy.address).await;
        client.send(head).await;
        assert_eq!(client.answer(false).await.expect("an answer").body, "ok");
        drop(client);
        assert_eq!(script.connections.load(Ordering::Relaxed), round, "none is used again");
    }
}

#[tokio::test]
async fn a_body_where_none_may_be_answers_nobody_else() {
    for (answer, method, status) in [
        (&b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison"[..], "GET", 204),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison", "GET", 304),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "HEAD", 200),
    ] {
        let script = Script::start(answer, false).await;
        let proxy = Proxy::start(&snapshot(1, vec![shop(&[script.address])]));
        let mut client = RawClient::connect(proxy.address).await;
        for _ in 0..3 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: shop.example\r\n\r\n")).await;
            let answer = client.answer(method == "HEAD").await.expect("an answer");
            assert_eq!(answer.status, status, "{answer:?}");
        }
        assert_eq!(script.connections.load(Ordering::Relaxed), 3, "{method} {status}");
    }
}

#[tokio::test]
async fn nothing_is_repeated_once_an_answer_began() {
    for begun in [
        &b"H"[..],
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    ] {
        let (one, two) = (Script::start(begun, true).await, Script::start(begun, true).await);
        let proxy = Proxy::start(&snapshot(1, vec![shop(&[one.address, two.address])]));
        let request = b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
        let answer = raw(proxy.address, request).await;
        let shown = String::from_utf8_lossy(begun);
        let answered = answer.contains("HTTP/1.1 502 ") || answer.contains("HTTP/1.1 200 ");
        assert!(answered, "{shown:?} got {answer:?}");
        let asked =
            one.connections.load(Ordering::Relaxed) + two.connections.load(Ordering::Relaxed);
        assert_eq!(asked, 1, "{shown:?}");
    }
}

#[tokio::test]
async fn repetitions_have_a_budget() {
    const REQUESTS: usize = 200;
    // Both read a request and hang up; neither is ever taken out.
    let (one, two) = (Script::start(b"", true).await, Script::start(b"", true).await);
    let mut shop = shop(&[one.address, two.address]);
    shop.services[0].dial.max_fails = 0;
    let proxy = Proxy::start(&snapshot(1, vec![shop]));
    let mut client = RawClient::connect(proxy.address).await;
    for _ in 0..REQUESTS {
        assert_eq!(client.get("shop.example", "/").await.status, 502);
    }
    let asked = one.connections.load(Ordering::Relaxed) + two.connections.load(Ordering::Relaxed);
    assert!(asked > REQUESTS, "some are repeated: {asked}");
    assert!(asked <= REQUESTS + 32 + REQUESTS / 5, "{asked}");
}

#[tokio::test]
async fn a_task_that_left_loses_its_idle_connections_and_ends_its_requests() {
    let silent = Script::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false).await;
    let slow = App::start("slow").await;
    let routes = vec![shop(&[silent.address]), route("slow.example", "/", &[slow.address])];
    let proxy = Proxy::start(&snapshot(1, routes));
    assert_eq!(get(proxy.address, "shop.example", "/").await.body, "ok");
    let mut under_way = RawClient::connect(proxy.address).await;
    under_way.send("GET /slow/1500 HTTP/1.1\r\nHost: slow.example\r\n\r\n").await;
    until("it is under way", async || slow.connections.load(Ordering::Relaxed) > 0).await;
    assert_eq!(silent.ended.load(Ordering::Relaxed), 0, "it is kept");
    proxy.swap(&snapshot(2, Vec::new()));
    until("the idle one is closed", async || silent.ended.load(Ordering::Relaxed) == 1).await;
    assert_eq!(under_way.answer(false).await.expect("an answer").body, "slow");
}

#[tokio::test]
async fn a_drain_says_goodbye_over_http_2_and_lets_requests_end() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![shop(&[app.address])]));
    let mut client = Http2::connect(proxy.address, &[]).await;
    let head = request(2, "shop.example", "/slow/700");
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
    until("it is under way", async || app.connections.load(Ordering::Relaxed) > 0).await;
    let drain = tokio::spawn(proxy.drain(Duration::from_secs(8)));
    let mut kinds = Vec::new();
    while let Some(got) = client.next().await {
        if got.kind == PING && got.flags == 0 {
            client.send(&frame(PING, 1, 0, &got.payload)).await;
        }
        if got.kind == HEADERS {
            assert_eq!((got.stream, got.payload[0]), (1, 0x88), "200");
        }
        kinds.push(got.kind);
    }
    // The goodbye comes before the answer, and the end after it.
    let place = |kind| kinds.iter().position(|found| *found == kind).expect("it came");
    assert!(place(GOAWAY) < place(HEADERS), "{kinds:?}");
    assert_eq!(drain.await.expect("it ends"), 0, "nothing was broken off");
}

#[tokio::test]
async fn a_tunnel_ends_with_the_grace_period_and_not_before() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![shop(&[app.address])]));
    let mut client = RawClient::connect(proxy.address).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    client.send(format!("GET /upgrade HTTP/1.1\r\nHost: shop.example\r\n{upgrade}")).await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 101);
    let drain = tokio::spawn(proxy.drain(Duration::from_secs(3)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.send("still here").await;
    assert_eq!(client.some().await, "still here");
    assert!(client.is_at_end().await);
    assert_eq!(drain.await.expect("it ends"), 1, "one was broken off");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    // An application that answers piece by piece, until it is let go.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let app = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut buffer = [0; 4_096];
        let _ = stream.read(&mut buffer).await.expect("a head");
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).await.expect("sent");
        while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let proxy = Proxy::start(&snapshot(1, vec![shop(&[address])]));
    let mut client = RawClient::connect(proxy.address).await;
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    assert!(client.some().await.contains("200 OK"));
    drop(client);
    let let_go = tokio::time::timeout(common::DEADLINE, app).await;
    assert!(let_go.is_ok_and(|ended| ended.is_ok()), "it is let go");
}
