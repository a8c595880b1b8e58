//! Limits of one connection, and of all of a client's.

mod common;

use std::time::Duration;

use common::tls::{Authority, SecretsDir, connect, get_on, terminated};
use common::upstream::App;
use common::{DEADLINE, Proxy, RawClient, get, raw, route, snapshot, snapshot_with, until};
use dovetail_routing::entry::ProxyOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_configured_number_of_connections_is_the_most() {
    let app = App::start("app").await;
    let routes = || vec![route("shop.example", "/", &[app.address])];
    let limited = ProxyOptions { max_connections: Some(2), ..ProxyOptions::default() };
    let proxy = Proxy::start(&snapshot_with(1, routes(), limited));
    let mut first = RawClient::connect(proxy.address).await;
    let mut second = RawClient::connect(proxy.address).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.get("shop.example", "/").await.body, "app");
    }
    assert!(RawClient::connect(proxy.address).await.is_at_end().await);
    proxy.swap(&snapshot(2, routes()));
    assert_eq!(get(proxy.address, "shop.example", "/").await.body, "app");
    assert_eq!(first.get("shop.example", "/").await.body, "app");
}

#[tokio::test]
async fn one_client_has_so_many_connections_and_a_trusted_proxy_more() {
    let app = App::start("app").await;
    let (authority, secrets) = (Authority::new("authority"), SecretsDir::new());
    secrets.put("shop", &authority.issue(&["shop.example"]));
    let routes = || vec![terminated(route("shop.example", "/", &[app.address]), "shop")];
    let proxy = Proxy::start_with(&snapshot(1, routes()), |config| {
        config.https = Some(([127, 0, 0, 1], 0).into());
        config.secrets = secrets.secrets();
        config.limits.connections_per_client_max = 2;
    });
    let client = authority.client(&["http/1.1"], None);
    let mut first = RawClient::connect(proxy.address).await;
    assert_eq!(first.get("shop.example", "/").await.body, "app");
    // Both ports count together.
    let mut second = connect(proxy.https, &client, "shop.example").await.expect("a connection");
    assert!(get_on(&mut second, "shop.example", "/").await.ends_with("app"));
    assert!(RawClient::connect(proxy.address).await.is_at_end().await);
    assert!(connect(proxy.https, &client, "shop.example").await.is_err());
    drop(first);
    until("its place is free again", async || {
        raw(proxy.address, b"GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n").await.ends_with("app")
    })
    .await;
    let trusting = ProxyOptions {
        trusted_proxies: vec!["127.0.0.1".parse().expect("an address")],
        ..ProxyOptions::default()
    };
    proxy.swap(&snapshot_with(2, routes(), trusting));
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut client = RawClient::connect(proxy.address).await;
        assert_eq!(client.get("shop.example", "/").await.body, "app");
        open.push(client);
    }
}

#[tokio::test]
async fn the_longest_head_is_as_configured() {
    let app = App::start("app").await;
    let routes = || vec![route("shop.example", "/", &[app.address])];
    let proxy = Proxy::start(&snapshot(1, routes()));
    let request = |bytes: usize| {
        let filler = "x".repeat(bytes);
        format!(
            "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nX-A: {filler}\r\n\r\n"
        )
    };
    for (revision, limit) in [(1, None), (2, Some(4 * 1_024)), (3, Some(40 * 1_024))] {
        let options = ProxyOptions { client_header_bytes_max: limit, ..ProxyOptions::default() };
        if revision > 1 {
            proxy.swap(&snapshot_with(revision, routes(), options));
        }
        let limit = usize::try_from(limit.unwrap_or(16 * 1_024)).expect("it fits");
        let answer = raw(proxy.address, request(limit - 300).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{limit}: {answer}");
        let answer = raw(proxy.address, request(limit + 300).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{limit}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.limits.head_timeout = Duration::from_millis(300);
        config.limits.body_rate_window = Duration::from_millis(400);
    });
    let head = "POST /echo HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 100000\r\n\r\n";
    let mut client = RawClient::connect(proxy.address).await;
    client.send(head).await;
    // Never silent for long, and never done.
    let mut open = true;
    until("the connection ended", async || {
        open = open && client.stream.write_all(b"x").await.is_ok();
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(5), client.stream.read(&mut byte));
        open = open && read.await.is_err();
        !open
    })
    .await;
    // A body in large pieces may take as long as it needs.
    let mut client = RawClient::connect(proxy.address).await;
    client.send(head).await;
    let piece = "x".repeat(10_000);
    for _ in 0..10 {
        client.send(&piece).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(client.answer(false).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_pause_within_a_body_is_as_long_as_configured() {
    let app = App::start("app").await;
    let routes = vec![route("shop.example", "/", &[app.address])];
    let options = ProxyOptions {
        client_body_timeout: Some(Duration::from_millis(300)),
        ..ProxyOptions::default()
    };
    let proxy = Proxy::start_with(&snapshot_with(1, routes, options), |config| {
        config.limits.head_timeout = Duration::from_millis(300);
    });
    let mut client = RawClient::connect(proxy.address).await;
    client.send("POST /echo HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\nabc").await;
    let ended = tokio::time::timeout(DEADLINE, client.is_at_end()).await;
    assert!(ended.is_ok_and(|ended| ended), "it ends without an answer");
}
