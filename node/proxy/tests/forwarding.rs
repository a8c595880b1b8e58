//! The real forwarding code on loopback: routes, retries, draining, swaps, streams.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::upstream::{App, Script, refused};
use common::{
    Proxy, RawClient, Service, get, raw, route, route_of, snapshot, snapshot_with, until,
};
use dovetail_routing::entry::ProxyOptions;

#[tokio::test]
async fn a_request_reaches_its_application_and_says_which() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    let answer = get(proxy.address, "shop.example", "/ping?x=1").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "app"));
    assert_eq!(answer.header("x-upstream-addr"), Some(app.address.to_string().as_str()));
    assert_eq!(answer.header("x-proxy-id"), Some("proxy-1"));
    let info = answer.header("x-server-info").expect("present");
    assert!(info.starts_with("dovetail/v") && info.contains(" linux/"), "{info}");
    let took = answer.header("x-upstream-response-time").expect("present");
    assert!(took.parse::<f64>().is_ok_and(|took| took < 10.0), "{took}");
    let seen = app.last();
    assert_eq!(seen.target, "/ping?x=1");
    assert_eq!(
        answer.header("x-request-id").map(str::as_bytes),
        Some(seen.headers["x-request-id"].as_bytes())
    );
    let options = ProxyOptions { hide_info_headers: true, ..ProxyOptions::default() };
    proxy.swap(&snapshot_with(2, vec![route("shop.example", "/", &[app.address])], options));
    let answer = get(proxy.address, "shop.example", "/").await;
    let info = answer.headers.iter().filter(|(name, _)| name.starts_with("x-") && name != "x-app");
    assert_eq!(info.count(), 0, "{:?}", answer.headers);
}

#[tokio::test]
async fn what_cannot_be_served_says_why() {
    let app = App::start("app").await;
    let nobody = refused().await;
    let proxy = Proxy::start(&snapshot(
        1,
        vec![
            route("shop.example", "/app", &[app.address]),
            route("empty.example", "/", &[]),
            route("down.example", "/", &[nobody]),
        ],
    ));
    for (host, target, status, kind, retry) in [
        ("other.example", "/", 503, "no_route", None),
        ("shop.example", "/", 404, "unknown_path", None),
        ("shop.example", "/apple", 404, "unknown_path", None),
        ("empty.example", "/", 503, "no_upstream", Some("1")),
        ("down.example", "/", 502, "connect", None),
    ] {
        let answer = get(proxy.address, host, target).await;
        assert_eq!((answer.status, answer.header("x-dovetail-error")), (status, Some(kind)));
        assert_eq!(answer.header("retry-after"), retry, "{host}{target}");
        assert!(answer.header("x-upstream-addr").is_none());
    }
    assert_eq!(get(proxy.address, "shop.example", "/app/x").await.status, 200);
}

#[tokio::test]
async fn replicas_take_turns() {
    let (a, b, c) = (App::start("a").await, App::start("b").await, App::start("c").await);
    let upstreams = [a.address, b.address, c.address];
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &upstreams)]));
    let mut client = RawClient::connect(proxy.address).await;
    for _ in 0..30 {
        assert_eq!(client.get("shop.example", "/").await.status, 200);
    }
    assert_eq!([a.count(), b.count(), c.count()], [10, 10, 10]);
    // Each upstream connection was kept.
    assert_eq!(a.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn services_on_one_route_share_it_by_weight() {
    let (stable, canary) = (App::start("stable").await, App::start("canary").await);
    let proxy = Proxy::start(&snapshot(
        1,
        vec![route_of(
            "shop.example",
            "/",
            &[
                Service { weight: 9_000, active: &[stable.address], draining: &[] },
                Service { weight: 1_000, active: &[canary.address], draining: &[] },
            ],
        )],
    ));
    let mut client = RawClient::connect(proxy.address).await;
    for _ in 0..100 {
        client.get("shop.example", "/").await;
    }
    assert!((9..=11).contains(&canary.count()), "{}", canary.count());
}

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere_for_any_method() {
    let app = App::start("app").await;
    let upstreams = [refused().await, app.address, refused().await];
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &upstreams)]));
    let mut client = RawClient::connect(proxy.address).await;
    for request in 0..12 {
        client
            .send("POST /echo HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nabc")
            .await;
        let answer = client.answer(false).await.expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "abc"), "request {request}");
    }
    assert_eq!(app.count(), 12);
}

#[tokio::test]
async fn a_request_that_was_sent_is_repeated_only_if_that_is_safe() {
    let app = App::start("app").await;
    // Reads the request, and hangs up.
    let rude = Script::start(b"", true).await;
    let upstreams = [rude.address, app.address];
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &upstreams)]));
    for _ in 0..4 {
        assert_eq!(get(proxy.address, "shop.example", "/").await.status, 200);
    }
    let asked = rude.connections.load(Ordering::Relaxed);
    assert!(asked >= 1, "the rude one was asked first");
    let routes =
        vec![route("shop.example", "/", &[rude.address]), route("b.example", "/", &upstreams)];
    proxy.swap(&snapshot(2, routes));
    let mut client = RawClient::connect(proxy.address).await;
    for method in ["POST", "PATCH"] {
        client
            .send(format!("{method} / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n"))
            .await;
        let answer = client.answer(false).await.expect("an answer");
        let kind = answer.header("x-dovetail-error");
        assert_eq!((answer.status, kind), (502, Some("upstream_closed")), "{method}");
    }
}

#[tokio::test]
async fn a_pooled_connection_that_died_costs_no_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let first = App::serve("first", listener);
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[address])]));
    let mut client = RawClient::connect(proxy.address).await;
    assert_eq!(client.get("shop.example", "/").await.body, "first");
    first.stop();
    until("the port is free again", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    let listener = tokio::net::TcpListener::bind(address).await.expect("free again");
    let _second = App::serve("second", listener);
    // The connection that died is a matter of the kernel's; the request that follows
    // cannot be repeated once it was sent.
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(client.answer(false).await.expect("an answer").body, "second");
}

#[tokio::test]
async fn draining_upstreams_get_no_new_requests_and_finish_the_old() {
    let (old, new) = (App::start("old").await, App::start("new").await);
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[old.address])]));
    let mut slow = RawClient::connect(proxy.address).await;
    slow.send("GET /slow/500 HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    until("the request is under way", async || proxy_in_flight(&old)).await;
    let services = [Service { weight: 10_000, active: &[new.address], draining: &[old.address] }];
    proxy.swap(&snapshot(2, vec![route_of("shop.example", "/", &services)]));
    for _ in 0..10 {
        assert_eq!(get(proxy.address, "shop.example", "/").await.body, "new");
    }
    assert_eq!(slow.answer(false).await.expect("an answer").body, "old");
    // The last task of a service serves until it goes.
    let services = [Service { weight: 10_000, active: &[], draining: &[old.address] }];
    proxy.swap(&snapshot(3, vec![route_of("shop.example", "/", &services)]));
    assert_eq!(get(proxy.address, "shop.example", "/").await.body, "old");
}

fn proxy_in_flight(app: &App) -> bool {
    app.connections.load(Ordering::Relaxed) > 0
}

#[tokio::test]
async fn a_draining_upstream_is_the_last_resort_while_the_new_one_starts() {
    let old = App::start("old").await;
    let not_yet = refused().await;
    let services = [Service { weight: 10_000, active: &[not_yet], draining: &[old.address] }];
    let proxy = Proxy::start(&snapshot(1, vec![route_of("shop.example", "/", &services)]));
    for _ in 0..10 {
        assert_eq!(get(proxy.address, "shop.example", "/").await.body, "old");
    }
}

#[tokio::test]
async fn a_swap_under_load_fails_no_request_and_every_request_sees_one_table() {
    let (a, b) = (App::start("a").await, App::start("b").await);
    let routes = |revision: u64| {
        let address = if revision.is_multiple_of(2) { a.address } else { b.address };
        snapshot(revision, vec![route("shop.example", "/", &[address])])
    };
    let proxy = Proxy::start_with(&routes(1), |config| config.threads = 2);
    let address = proxy.address;
    let mut clients = tokio::task::JoinSet::new();
    let end = Instant::now() + Duration::from_secs(2);
    for _ in 0..8 {
        clients.spawn(async move {
            let mut client = RawClient::connect(address).await;
            let mut count = 0;
            while Instant::now() < end {
                assert_eq!(client.get("shop.example", "/").await.status, 200);
                count += 1;
            }
            count
        });
    }
    let mut revision = 1;
    while Instant::now() < end {
        revision += 1;
        proxy.swap(&routes(revision));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut requests = 0;
    while let Some(count) = clients.join_next().await {
        requests += count.expect("no request failed");
    }
    assert!(requests > 100 && revision > 50, "{requests} requests, {revision} swaps");
    assert!(a.count() > 0 && b.count() > 0);
}

#[tokio::test]
async fn trailers_and_chunks_pass() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    let request = b"GET /trailers HTTP/1.1\r\nHost: shop.example\r\nTE: trailers\r\nConnection: close\r\n\r\n";
    let answer = raw(proxy.address, request).await;
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    assert!(answer.contains("x-sum: 7\r\n"), "{answer}");
    let mut client = RawClient::connect(proxy.address).await;
    assert_eq!(client.get("shop.example", "/chunked").await.body, "one two");
}

#[tokio::test]
async fn a_large_body_streams_within_bounds_and_no_faster_than_it_is_read() {
    const BYTES: usize = 64 * 1_024 * 1_024;
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    let mut client = RawClient::connect(proxy.address).await;
    client.send(format!("GET /bytes/{BYTES} HTTP/1.1\r\nHost: shop.example\r\n\r\n")).await;
    let before = resident();
    // Nobody reads yet: the proxy must not take it all in.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 24 * 1_024 * 1_024, "grew by {grown} bytes");
    let answer = client.answer(false).await.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, BYTES));
    // The same upwards.
    let head = "POST /echo HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000\r\n\r\n";
    client.send(head).await;
    client.send(vec![b'x'; 1_000_000]).await;
    assert_eq!(client.answer(false).await.expect("an answer").body.len(), 1_000_000);
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok());
    kib.unwrap_or(0) * 1_024
}

#[tokio::test]
async fn bodies_above_the_limit_are_413_whether_announced_or_not() {
    let app = App::start("app").await;
    let options = ProxyOptions { client_max_body_size: Some(1_000), ..ProxyOptions::default() };
    let routes = vec![route("shop.example", "/", &[app.address])];
    let proxy = Proxy::start(&snapshot_with(1, routes, options));
    let big = "x".repeat(2_000);
    for (lines, body) in [
        ("Content-Length: 2000", big.clone()),
        ("Transfer-Encoding: chunked", format!("7d0\r\n{big}\r\n0\r\n\r\n")),
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n\r\n{body}");
        let answer = raw(proxy.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{lines}: {answer}");
    }
    let small = "POST /echo HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nabc";
    let mut client = RawClient::connect(proxy.address).await;
    client.send(small).await;
    assert_eq!(client.answer(false).await.expect("an answer").body, "abc");
}

#[tokio::test]
async fn a_silent_upstream_is_504() {
    let silent = Script::start(b"", false).await;
    let half = Script::start(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", false).await;
    let options =
        ProxyOptions { read_timeout: Some(Duration::from_millis(200)), ..ProxyOptions::default() };
    let routes = vec![
        route("silent.example", "/", &[silent.address]),
        route("half.example", "/", &[half.address]),
    ];
    let proxy = Proxy::start(&snapshot_with(1, routes, options));
    let answer = get(proxy.address, "silent.example", "/").await;
    assert_eq!((answer.status, answer.header("x-dovetail-error")), (504, Some("response_timeout")));
    let request = b"GET / HTTP/1.1\r\nHost: half.example\r\n\r\n";
    let answer = raw(proxy.address, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("abc"), "cut off: {answer}");
}

#[tokio::test]
async fn http_2_without_tls_is_served_on_the_same_port() {
    use http_body_util::BodyExt as _;
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    let stream = tokio::net::TcpStream::connect(proxy.address).await.expect("connected");
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, conn) = hyper::client::conn::http2::handshake(executor, io).await.expect("h2");
    let conn = tokio::spawn(conn);
    let mut answers = tokio::task::JoinSet::new();
    for request in 0..50 {
        let mut sender = sender.clone();
        answers.spawn(async move {
            let request = http::Request::post(format!("http://Shop.example/echo?{request}"))
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(http_body_util::Full::new(bytes::Bytes::from("abc")))
                .expect("a request");
            let answer = sender.send_request(request).await.expect("an answer");
            assert_eq!(
                (answer.status(), answer.version()),
                (200.try_into().expect("a status"), http::Version::HTTP_2)
            );
            assert!(answer.headers().contains_key("x-upstream-addr"));
            answer.into_body().collect().await.expect("a body").to_bytes()
        });
    }
    while let Some(body) = answers.join_next().await {
        assert_eq!(body.expect("answered"), "abc");
    }
    let seen = app.last();
    assert_eq!(seen.headers["host"], "Shop.example");
    assert_eq!(seen.headers["cookie"], "a=1; b=2");
    assert_eq!(app.count(), 50);
    drop(sender);
    conn.abort();
}

#[tokio::test]
async fn a_proxy_drains_within_its_grace_period() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    let address = proxy.address;
    let mut idle = RawClient::connect(address).await;
    assert_eq!(idle.get("shop.example", "/").await.header("connection"), None);
    let mut busy = RawClient::connect(address).await;
    busy.send("GET /slow/700 HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    until("the request is under way", async || app.connections.load(Ordering::Relaxed) > 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let drain = tokio::spawn(proxy.drain(Duration::from_secs(8)));
    until("no new connections", async || tokio::net::TcpStream::connect(address).await.is_err())
        .await;
    // An open connection is answered once more, and told to close.
    let answer = idle.get("shop.example", "/").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let answer = busy.answer(false).await.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(drain.await.expect("it ends"), 0, "nothing was broken off");
}

#[tokio::test]
async fn what_outlasts_the_grace_period_is_broken_off() {
    let app = App::start("app").await;
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &[app.address])]));
    let mut busy = RawClient::connect(proxy.address).await;
    busy.send("GET /slow/60000 HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    until("the request is under way", async || app.connections.load(Ordering::Relaxed) > 0).await;
    let began = Instant::now();
    assert_eq!(proxy.drain(Duration::from_millis(300)).await, 1);
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(busy.answer(false).await.is_none());
}

#[tokio::test]
async fn too_many_connections_are_turned_away() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.limits.connections_max = 2;
    });
    let mut first = RawClient::connect(proxy.address).await;
    let mut second = RawClient::connect(proxy.address).await;
    assert_eq!(first.get("shop.example", "/").await.status, 200);
    assert_eq!(second.get("shop.example", "/").await.status, 200);
    assert!(RawClient::connect(proxy.address).await.is_at_end().await);
    drop(first);
    until("there is room again", async || {
        let mut third = RawClient::connect(proxy.address).await;
        third.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
        third.answer(false).await.is_some()
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.limits.client_timeout = Duration::from_millis(300);
        config.limits.head_timeout = Duration::from_millis(300);
    });
    let mut client = RawClient::connect(proxy.address).await;
    client.send("GET /bytes/67108864 HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answer = tokio::spawn(async move { client.answer(false).await.is_some() });
    assert!(answer.await.is_err(), "the body was cut off");
}

#[tokio::test]
async fn a_client_that_left_is_not_waited_for() {
    let silent = Script::start(b"", false).await;
    let routes = vec![route("shop.example", "/", &[silent.address])];
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.limits.client_timeout = Duration::from_millis(200);
        config.limits.head_timeout = Duration::from_millis(200);
    });
    let mut client = RawClient::connect(proxy.address).await;
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    until("the request is under way", async || silent.connections.load(Ordering::Relaxed) > 0)
        .await;
    drop(client);
    until("the upstream is let go", async || silent.ended.load(Ordering::Relaxed) > 0).await;
}

#[tokio::test]
async fn an_upstream_that_was_out_is_tried_by_one_request() {
    // Nobody accepts, and nobody refuses: connections time out.
    let full = tokio::net::TcpSocket::new_v4().expect("a socket");
    full.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let deaf = full.listen(1).expect("it listens");
    let deaf_address = deaf.local_addr().expect("an address");
    let mut fill = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(
        Duration::from_millis(300),
        tokio::net::TcpStream::connect(deaf_address),
    )
    .await
    {
        fill.push(stream);
    }
    let app = App::start("app").await;
    let upstreams = [deaf_address, app.address];
    let proxy = Proxy::start(&snapshot(1, vec![route("shop.example", "/", &upstreams)]));
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let address = proxy.address;
        clients.spawn(async move { get(address, "shop.example", "/").await.body });
    }
    while let Some(body) = clients.join_next().await {
        assert_eq!(body.expect("answered"), "app");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // By now it is out: nobody waits for it.
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(get(proxy.address, "shop.example", "/").await.body, "app");
    }
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
}
