//! TLS as clients meet it: versions, protocols, names, sessions, and what is refused.

mod common;

use std::time::Duration;

use common::tls::{
    Authority, SecretsDir, connect, curl, exchange, get_on, get_tls, s_client, terminated,
};
use common::upstream::App;
use common::{DEADLINE, Proxy, get, route, snapshot, snapshot_with, until};
use dovetail_routing::entry::{ProxyOptions, SslProtocols};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An application behind a proxy with a certificate for it.
struct World {
    authority: Authority,
    secrets: SecretsDir,
    app: App,
    proxy: Proxy,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut dovetail_proxy::server::Config)) -> Self {
        let authority = Authority::new("authority");
        let secrets = SecretsDir::new();
        secrets.put("shop", &authority.issue(&["shop.example", "*.shop.example"]));
        secrets.write("ca.pem", &authority.pem);
        let app = App::start("app").await;
        let routes = vec![terminated(route("shop.example", "/", &[app.address]), "shop")];
        let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
            config.https = Some(([127, 0, 0, 1], 0).into());
            config.secrets = secrets.secrets();
            change(config);
        });
        Self { authority, secrets, app, proxy }
    }
}

#[tokio::test]
async fn curl_is_served_over_each_version_and_protocol() {
    let world = World::new().await;
    let ca = world.secrets.path().join("ca.pem");
    for (version, protocol, said) in [
        (&["--tlsv1.2", "--tls-max", "1.2"][..], "--http1.1", "HTTP/1.1 200"),
        (&["--tlsv1.2", "--tls-max", "1.2"], "--http2", "HTTP/2 200"),
        (&["--tlsv1.3"], "--http1.1", "HTTP/1.1 200"),
        (&["--tlsv1.3"], "--http2", "HTTP/2 200"),
    ] {
        let mut words = vec!["-i", protocol];
        words.extend(version);
        let url = "https://SHOP.example/";
        let (ok, text) = curl(world.proxy.https, &ca, url, &words).await;
        assert!(ok && text.starts_with(said) && text.ends_with("app"), "{words:?}: {text}");
        assert!(text.contains("x-proxy-id: proxy-1"), "{text}");
        let seen = world.app.last();
        assert_eq!(seen.headers["x-forwarded-proto"], "https");
        assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    }
    // Plain HTTP still answers: nothing asked for TLS alone.
    assert_eq!(get(world.proxy.address, "shop.example", "/").await.body, "app");
    assert_eq!(world.app.last().headers["x-forwarded-proto"], "http");
}

#[tokio::test]
async fn openssl_sees_the_certificate_the_version_and_the_protocol() {
    let world = World::new().await;
    let ca = world.secrets.path().join("ca.pem").display().to_string();
    let asked = ["-servername", "shop.example", "-CAfile", &ca, "-verify_return_error"];
    for (version, alpn, lines) in [
        ("-tls1_3", "h2,http/1.1", &["New, TLSv1.3", "ALPN protocol: h2"][..]),
        ("-tls1_3", "http/1.1", &["New, TLSv1.3", "ALPN protocol: http/1.1"]),
        ("-tls1_2", "http/1.1,h2", &["New, TLSv1.2", "ALPN protocol: h2"]),
    ] {
        let words = [&asked[..], &[version, "-alpn", alpn]].concat();
        let (_, text) = s_client(world.proxy.https, &words).await;
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
        assert!(text.contains("CN = shop.example"), "{text}");
        for line in lines {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
    for old in ["-tls1_1", "-tls1"] {
        let words = [&asked[..], &[old, "-cipher", "ALL:@SECLEVEL=0"]].concat();
        let (ok, text) = s_client(world.proxy.https, &words).await;
        assert!(!ok && text.contains("Cipher is (NONE)"), "{old}: {text}");
    }
    let words = [&asked[..], &["-alpn", "spdy/3"]].concat();
    let (ok, text) = s_client(world.proxy.https, &words).await;
    assert!(!ok && text.contains("no application protocol"), "{text}");
}

#[tokio::test]
async fn names_that_no_host_has_are_refused_until_there_is_a_default() {
    let world = World::new().await;
    for asked in [&["-servername", "other.example"][..], &["-noservername"]] {
        let (ok, text) = s_client(world.proxy.https, asked).await;
        assert!(!ok && text.contains("unrecognized name"), "{asked:?}: {text}");
        assert!(text.contains("no peer certificate available"), "{text}");
    }
    world.secrets.put("default", &world.authority.issue(&["default.example"]));
    let routes = vec![
        terminated(route("shop.example", "/", &[world.app.address]), "shop"),
        terminated(route("*", "/", &[world.app.address]), "default"),
        route("plain.example", "/", &[world.app.address]),
    ];
    world.proxy.swap(&snapshot(2, routes));
    for asked in [
        &["-servername", "other.example"][..],
        &["-noservername"],
        // It has no certificate of its own.
        &["-servername", "plain.example"],
    ] {
        let (_, text) = s_client(world.proxy.https, asked).await;
        assert!(text.contains("CN = default.example"), "{asked:?}: {text}");
    }
    let (_, text) = s_client(world.proxy.https, &["-servername", "shop.example"]).await;
    assert!(text.contains("CN = shop.example"), "{text}");
}

#[tokio::test]
async fn a_wildcard_host_is_found_by_its_name() {
    let world = World::new().await;
    let routes = vec![terminated(route("*.shop.example", "/", &[world.app.address]), "shop")];
    world.proxy.swap(&snapshot(2, routes));
    let client = world.authority.client(&["http/1.1"], None);
    let answer = get_tls(world.proxy.https, &client, "www.shop.example", "/").await;
    assert!(answer.expect("served").ends_with("app"));
    assert!(connect(world.proxy.https, &client, "shop.example").await.is_err());
}

#[tokio::test]
async fn sessions_are_resumed() {
    let world = World::new().await;
    for version in rustls::ALL_VERSIONS {
        let client = world.authority.client_of(&["http/1.1"], None, &[version]);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut stream = connect(world.proxy.https, &client, "shop.example").await;
            let stream = stream.as_mut().expect("a connection");
            let request = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
            exchange(stream, request).await.expect("an answer");
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(expected), "{:?}", version.version);
        }
    }
}

#[tokio::test]
async fn versions_and_ciphers_change_without_dropping_a_connection() {
    let world = World::new().await;
    let client = world.authority.client(&["http/1.1"], None);
    let mut before =
        connect(world.proxy.https, &client, "shop.example").await.expect("a connection");
    assert!(get_on(&mut before, "shop.example", "/").await.ends_with("app"));
    let options = ProxyOptions {
        ssl_protocols: SslProtocols::Tls12,
        ssl_ciphers: vec!["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384".into()],
        ..ProxyOptions::default()
    };
    let routes = || vec![terminated(route("shop.example", "/", &[world.app.address]), "shop")];
    world.proxy.swap(&snapshot_with(2, routes(), options));
    let name = ["-servername", "shop.example"];
    let (_, text) = s_client(world.proxy.https, &name).await;
    assert!(text.contains("New, TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"), "{text}");
    let (ok, _) = s_client(world.proxy.https, &[&name[..], &["-tls1_3"]].concat()).await;
    assert!(!ok, "TLS 1.3 is off");
    let other = [&name[..], &["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]].concat();
    assert!(!s_client(world.proxy.https, &other).await.0, "that cipher is off");
    let options = ProxyOptions { ssl_protocols: SslProtocols::Tls13, ..ProxyOptions::default() };
    world.proxy.swap(&snapshot_with(3, routes(), options));
    let (_, text) = s_client(world.proxy.https, &name).await;
    assert!(text.contains("New, TLSv1.3"), "{text}");
    assert!(!s_client(world.proxy.https, &[&name[..], &["-tls1_2"]].concat()).await.0);
    assert!(get_on(&mut before, "shop.example", "/").await.ends_with("app"), "it still stands");
}

#[tokio::test]
async fn what_is_no_handshake_is_ended_in_time() {
    let world = World::with(|config| config.limits.head_timeout = Duration::from_millis(300)).await;
    let mut hello = vec![22, 3, 1, 2, 0];
    hello.extend(std::iter::repeat_n(0, 100));
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        // Begun, and never ended.
        &[],
        &[22],
        &hello[..40],
        // A record that is larger than any may be.
        &[22, 3, 1, 255, 255, 1],
    ] {
        let mut stream = TcpStream::connect(world.proxy.https).await.expect("connected");
        stream.write_all(bytes).await.expect("sent");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{bytes:?} is still open");
        // Nothing, or an alert of TLS.
        assert!(answer.first().is_none_or(|kind| *kind == 21), "{bytes:?}: {answer:?}");
    }
    assert_eq!(world.app.count(), 0);
}

#[tokio::test]
async fn an_upgrade_over_tls_becomes_a_tunnel() {
    let world = World::new().await;
    let client = world.authority.client(&["http/1.1"], None);
    let mut stream =
        connect(world.proxy.https, &client, "shop.example").await.expect("a connection");
    let request = "GET /upgrade HTTP/1.1\r\nHost: shop.example\r\nConnection: upgrade\r\n\
                   Upgrade: echo\r\n\r\nearly ";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let mut chunk = [0; 1_024];
    let mut more = "late";
    while !answer.ends_with("early late") {
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut chunk)).await;
        let count = read.expect("an answer in time").expect("read");
        assert!(count > 0, "{answer}");
        answer += &String::from_utf8_lossy(&chunk[..count]);
        if answer.ends_with("early ") {
            stream.write_all(std::mem::take(&mut more).as_bytes()).await.expect("sent");
        }
    }
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}

#[tokio::test]
async fn framing_is_as_strict_inside_of_tls() {
    let world = World::new().await;
    let client = world.authority.client(&["http/1.1"], None);
    let mut stream =
        connect(world.proxy.https, &client, "shop.example").await.expect("a connection");
    let request = "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\
                   Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
                   GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    let answer = exchange(&mut stream, request).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(world.app.count(), 0);
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let world = World::new().await;
    let client = world.authority.client(&["http/1.1"], None);
    let answer = get_tls(world.proxy.https, &client, "shop.example", "/bytes/3000000").await;
    assert!(answer.expect("an answer").len() > 3_000_000);
    let body = "x".repeat(2_000_000);
    let mut stream =
        connect(world.proxy.https, &client, "shop.example").await.expect("a connection");
    let request = format!(
        "POST /echo HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(&mut stream, &request).await.expect("an answer");
    assert!(answer.ends_with(&body), "{} bytes came back", answer.len());
}

#[tokio::test]
async fn a_drain_lets_requests_end_and_says_goodbye() {
    let world = World::new().await;
    let client = world.authority.client(&["http/1.1"], None);
    let mut idle = connect(world.proxy.https, &client, "shop.example").await.expect("connected");
    assert!(get_on(&mut idle, "shop.example", "/").await.ends_with("app"));
    let mut busy = connect(world.proxy.https, &client, "shop.example").await.expect("connected");
    let request = "GET /slow/500 HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    busy.write_all(request.as_bytes()).await.expect("sent");
    until("the request is under way", async || {
        world.app.connections.load(std::sync::atomic::Ordering::Relaxed) > 1
            || world.app.count() > 0
    })
    .await;
    let drained = tokio::spawn(world.proxy.drain(Duration::from_secs(8)));
    let mut answer = Vec::new();
    // An end without close_notify would be an error.
    busy.read_to_end(&mut answer).await.expect("a clean end");
    assert!(String::from_utf8_lossy(&answer).ends_with("app"));
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.expect("a clean end");
    assert_eq!(drained.await.expect("it ends"), 0);
}
