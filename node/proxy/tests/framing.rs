//! Raw bytes against the real executable: what is refused, and what is passed on as what.
//!
//! Where hyper's tokenizer is strict by itself the test still holds it to that; the
//! rest is the work of `framing.rs`, before hyper sees a byte.

mod common;

use common::process::{A_MOMENT, Process};
use common::upstream::{App, Script};
use common::{RawClient, get, raw, route, snapshot, until};

async fn proxy_of(app: &App) -> Process {
    Process::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]), &[]).await
}

/// Sends each stream, followed by a request that must never be seen.
async fn all_refused(status: u16, streams: &[Vec<u8>]) {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    for stream in streams {
        let shown = String::from_utf8_lossy(&stream[..stream.len().min(200)]).into_owned();
        let mut bytes = stream.clone();
        bytes.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        let answer = raw(proxy.http, &bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?} got {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown:?} got {answer:?}");
    }
    tokio::time::sleep(A_MOMENT).await;
    let seen: Vec<_> = app.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, Vec::<String>::new(), "the application saw requests");
    assert_eq!(get(proxy.http, "shop.example", "/").await.status, 200, "others are served");
}

fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn ambiguous_lengths_are_400_and_end_the_connection() {
    all_refused(
        400,
        &[
            post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding: identity\r\n", ""),
            post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"),
            post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"),
            post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"),
            post("Content-Length: 3, 3\r\n", "abc"),
            post("Content-Length: +3\r\n", "abc"),
            post("Content-Length: -3\r\n", "abc"),
            post("Content-Length: 3 3\r\n", "abc"),
            post("Content-Length: 0x3\r\n", "abc"),
            post("Content-Length: 99999999999999999999\r\n", "abc"),
            post("Content-Length:\r\n", ""),
            b"POST / HTTP/1.0\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_vec(),
        ],
    )
    .await;
}

#[tokio::test]
async fn malformed_heads_are_400_and_end_the_connection() {
    let with = |line: &str| format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{line}\r\n\r\n");
    all_refused(
        400,
        &[
            with("X-A: b\r\n folded").into(),
            with("X-A : b").into(),
            with("X-A\t: b").into(),
            with(": b").into(),
            with("no colon").into(),
            with("X-A: b\0c").into(),
            with("X-A: b\rc").into(),
            with("X-A: b\nX-B: c").into(),
            with("X-\u{1}A: b").into(),
            b"GET / HTTP/1.1\r\n Host: shop.example\r\n\r\n".to_vec(),
            b"GET / HTTP/1.1\nHost: shop.example\n\n".to_vec(),
            b"\nGET / HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec(),
            b"GET  / HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec(),
            b"GET / a HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec(),
            b"GET / HTTP/1.2\r\nHost: shop.example\r\n\r\n".to_vec(),
            b"GET / HTTP/2.0\r\nHost: shop.example\r\n\r\n".to_vec(),
            b"GET /\r\nHost: shop.example\r\n\r\n".to_vec(),
            b"GET shop HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec(),
            b"GET shop.example:80 HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec(),
            b"GET ftp://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec(),
            b"G\0T / HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec(),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_request_has_exactly_one_valid_host() {
    let with = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
    all_refused(
        400,
        &[
            with(""),
            with("Host:\r\n"),
            with("Host: shop.example\r\nHost: shop.example\r\n"),
            with("Host: shop.example\r\nHost: other.example\r\n"),
            with("Host: shop.example/x\r\n"),
            with("Host: user@shop.example\r\n"),
            with("Host: shop.example:80:80\r\n"),
            with("Host: shop.example, other.example\r\n"),
            b"GET http://shop.example/ HTTP/1.1\r\n\r\n".to_vec(),
            b"GET http://a@shop.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec(),
        ],
    )
    .await;
    all_refused(405, &[b"CONNECT shop.example:80 HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec()])
        .await;
}

#[tokio::test]
async fn heads_have_limits() {
    let long = "x".repeat(17 * 1_024);
    let many = "X-A: b\r\n".repeat(101);
    all_refused(431, &[post(&format!("X-Long: {long}\r\n"), ""), post(&many, "")]).await;
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let mut client = RawClient::connect(proxy.http).await;
    let answer = client.get("shop.example", &format!("/{}", "x".repeat(8 * 1_024))).await;
    assert_eq!((answer.status, answer.header("x-dovetail-error")), (414, Some("target_too_long")));
    assert_eq!(client.get("shop.example", "/").await.status, 200, "the connection goes on");
    let fits = format!("/{}", "x".repeat(8 * 1_024 - 1));
    assert_eq!(client.get("shop.example", &fits).await.status, 200);
}

#[tokio::test]
async fn malformed_chunks_are_400_and_end_the_connection() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(2_000));
    let trailers = format!("0\r\n{}\r\n", "X-A: b\r\n".repeat(3_000));
    for body in [
        "x\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "0\r\nX-A b\r\n\r\n",
        "0\r\nX-A: b\n\r\n",
        &extension,
        &trailers,
    ] {
        let mut bytes = post("Transfer-Encoding: chunked\r\n", body);
        bytes.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        let answer = raw(proxy.http, &bytes).await;
        let shown = &body[..body.len().min(100)];
        assert!(answer.starts_with("HTTP/1.1 400 "), "{shown:?} got {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown:?} got {answer:?}");
    }
    tokio::time::sleep(A_MOMENT).await;
    let whole: Vec<_> = app.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(whole, Vec::<String>::new(), "no request arrived whole");
}

#[tokio::test]
async fn well_formed_chunks_arrive_as_they_were_meant() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let mut client = RawClient::connect(proxy.http).await;
    for (body, meant) in [
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("3;x=y\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX-A: b\r\n\r\n", "abc0123456789"),
        ("0\r\n\r\n", ""),
    ] {
        client.send(post("Transfer-Encoding: chunked\r\n", body)).await;
        assert_eq!(client.answer(false).await.expect("an answer").status, 200);
        assert_eq!(app.last().body, meant);
    }
    // A GET may carry a body too, and then keeps it.
    client
        .send("GET /echo HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.answer(false).await.expect("an answer").body, "abc");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let mut client = RawClient::connect(proxy.http).await;
    client
        .send(
            "GET /slow/100 HTTP/1.1\r\nHost: shop.example\r\n\r\n\
             POST /echo HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nabc\
             GET /status/404 HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        )
        .await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = client.answer(false).await.expect("an answer");
        answers.push((answer.status, answer.body));
    }
    assert_eq!(answers, [(200, "app".into()), (200, "abc".into()), (404, "app".into())]);
    let targets: Vec<_> = app.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/slow/100", "/echo", "/status/404"]);
}

#[tokio::test]
async fn the_host_is_read_without_case_port_and_dot_and_passed_on_as_sent() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let mut client = RawClient::connect(proxy.http).await;
    for host in ["shop.example", "SHOP.example", "shop.example:8080", "shop.example."] {
        assert_eq!(client.get(host, "/x").await.status, 200, "{host}");
        assert_eq!(app.last().headers["host"], host);
    }
    // Absolute-form: its authority is the host, for the route and for the application.
    client.send("GET http://shop.example/y?z HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    let seen = app.last();
    assert_eq!(
        (seen.target.as_str(), &seen.headers["host"]),
        ("/y?z", &"shop.example".parse().expect("a value"))
    );
}

#[tokio::test]
async fn paths_are_forwarded_byte_for_byte() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let mut client = RawClient::connect(proxy.http).await;
    for target in ["/a/../b", "/a%2Fb", "//a//b", "/%2e%2e/x", "/a;b=c?d=/../e", "/?"] {
        assert_eq!(client.get("shop.example", target).await.status, 200, "{target}");
        assert_eq!(app.last().target, target);
    }
}

#[tokio::test]
async fn headers_of_one_hop_stay_there_and_clients_cannot_forge() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let mut client = RawClient::connect(proxy.http).await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: shop.example\r\n\
             Connection: keep-alive, X-Hop, Host, X-Forwarded-For, Authorization\r\n\
             X-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
             Proxy-Authorization: Basic x\r\nAuthorization: Basic y\r\nTE: gzip, trailers\r\n\
             Upgrade: h2c\r\n\
             X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
             X-Real-IP: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
             X-Request-Id: mine\r\nX-Kept: yes\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    let headers = app.last().headers;
    for gone in [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "x_real_ip",
        "forwarded",
        "connection",
    ] {
        assert!(!headers.contains_key(gone), "{gone} arrived");
    }
    for (name, value) in [
        ("host", "shop.example"),
        ("authorization", "Basic y"),
        ("te", "trailers"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example"),
        ("x-real-ip", "127.0.0.1"),
        ("x-request-id", "mine"),
        ("x-kept", "yes"),
    ] {
        assert_eq!(headers.get(name).map(|v| v.as_bytes()), Some(value.as_bytes()), "{name}");
        assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
    }
}

#[tokio::test]
async fn bytes_behind_an_upgrade_are_a_request_unless_the_upstream_switched() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let upgrade = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
    };
    // Answered 200: what follows is the next request, and is checked like one.
    let mut client = RawClient::connect(proxy.http).await;
    client.send(upgrade("/plain") + "GET /next HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    for _ in 0..2 {
        assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    }
    let targets: Vec<_> = app.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/plain", "/next"]);
    let answer = raw(proxy.http, (upgrade("/plain") + "GET /\n\n").as_bytes()).await;
    assert!(answer.contains("HTTP/1.1 200 ") && answer.contains("HTTP/1.1 400 "), "{answer:?}");
    // Answered 101: what follows is the tunnel's, both what came early and what came later.
    let mut client = RawClient::connect(proxy.http).await;
    client.send(upgrade("/upgrade") + "early ").await;
    let answer = client.answer(false).await.expect("an answer");
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
    client.send("GET /not-a-request\n\n").await;
    let mut echoed = String::new();
    while echoed.len() < 26 {
        echoed += &client.some().await;
    }
    assert_eq!(echoed, "early GET /not-a-request\n\n");
}

#[tokio::test]
async fn bodies_that_are_not_there_are_not_waited_for() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let mut client = RawClient::connect(proxy.http).await;
    client.send("HEAD /bytes/1000 HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    assert_eq!(client.answer(true).await.expect("an answer").status, 200);
    for status in [204, 304] {
        assert_eq!(client.get("shop.example", &format!("/status/{status}")).await.status, status);
    }
    client.send("OPTIONS * HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
    assert_eq!(app.last().target, "*");
}

#[tokio::test]
async fn http_1_0_needs_no_host_and_gets_no_chunks() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let answer = raw(proxy.http, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 503 ") && answer.contains("no_route"), "{answer:?}");
    let answer = raw(proxy.http, b"GET /chunked HTTP/1.0\r\nHost: shop.example\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\none two"),
        "{answer:?}"
    );
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer:?}");
}

#[tokio::test]
async fn a_client_that_closed_its_half_still_gets_its_answer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let mut stream = tokio::net::TcpStream::connect(proxy.http).await.expect("connected");
    stream.write_all(b"GET /slow/200 HTTP/1.1\r\nHost: shop.example\r\n\r\n").await.expect("sent");
    stream.shutdown().await.expect("half closed");
    let mut answer = String::new();
    let read = tokio::time::timeout(common::DEADLINE, stream.read_to_string(&mut answer)).await;
    assert!(read.is_ok_and(|read| read.is_ok()) && answer.ends_with("app"), "{answer:?}");
}

#[tokio::test]
async fn an_expected_100_is_the_upstreams_to_say() {
    let app = App::start("app").await;
    let proxy = proxy_of(&app).await;
    let request = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    // The application reads the body, so it says 100, and so does the proxy.
    let mut client = RawClient::connect(proxy.http).await;
    client.send(request("/echo")).await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 100);
    client.send("abc").await;
    assert_eq!(client.answer(false).await.expect("an answer").body, "abc");
    // It does not want the body: the client hears that, and no 100.
    let mut client = RawClient::connect(proxy.http).await;
    client.send(request("/early")).await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 417);
}

#[tokio::test]
async fn what_an_upstream_says_unasked_reaches_nobody() {
    // Two answers to one request: the second must not answer the next request.
    let script = Script::start(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noneHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        false,
    )
    .await;
    let routes = vec![route("shop.example", "/", &[script.address])];
    let proxy = Process::start(&snapshot(1, routes), &["--threads", "1"]).await;
    let mut client = RawClient::connect(proxy.http).await;
    for _ in 0..5 {
        let answer = client.get("shop.example", "/").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "one"));
    }
    assert_eq!(script.connections.load(std::sync::atomic::Ordering::Relaxed), 5);
}

#[tokio::test]
async fn answers_that_could_be_read_two_ways_are_502() {
    for (bytes, body) in [
        // hyper goes by the chunks, and the client is told of nothing else.
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"[..],
            Some("abc"),
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", None),
        (b"HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n", None),
        (b"ICY 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some("ok")),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", Some("to the end")),
    ] {
        let script = Script::start(bytes, true).await;
        let routes = vec![route("shop.example", "/", &[script.address])];
        let proxy = common::Proxy::start(&snapshot(1, routes));
        let answer = get(proxy.address, "shop.example", "/").await;
        let shown = String::from_utf8_lossy(bytes);
        match body {
            Some(body) => {
                assert_eq!((answer.status, answer.body.as_str()), (200, body), "{shown}");
                assert_eq!(answer.header("content-length").is_some(), body == "ok", "{shown}");
            }
            None => {
                assert_eq!(answer.status, 502, "{shown}");
                assert_eq!(answer.header("x-dovetail-error"), Some("invalid_response"), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn a_slow_head_is_given_up_and_others_are_served() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let proxy = common::Proxy::start_with(&snapshot(1, routes), |config| {
        config.limits.head_timeout = std::time::Duration::from_millis(300);
        config.limits.client_timeout = std::time::Duration::from_millis(300);
    });
    let mut head = RawClient::connect(proxy.address).await;
    head.send("GET / HTTP/1.1\r\nHost: sh").await;
    let mut body = RawClient::connect(proxy.address).await;
    body.send("POST /echo HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 9\r\n\r\nabc").await;
    let mut idle = RawClient::connect(proxy.address).await;
    assert_eq!(idle.get("shop.example", "/").await.status, 200);
    assert!(head.is_at_end().await, "a head that does not end");
    until("a body that does not end", async || body.is_at_end().await).await;
    assert_eq!(idle.get("shop.example", "/").await.status, 200, "an idle one may stay");
}
