//! A load balancer in front that says who the client is, and strangers who try to.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::tls::{Authority, SecretsDir, exchange, passed_through, terminated};
use common::upstream::App;
use common::{DEADLINE, Proxy, RawClient, raw, route, snapshot_with};
use dovetail_routing::entry::ProxyOptions;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const NAMED: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 4444 443\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";

fn version_2(command: u8) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | command, 0x11, 0, 12, 203, 0, 113, 9, 192, 0, 2, 1, 1, 1, 1, 187]);
    bytes
}

struct World {
    authority: Authority,
    app: App,
    proxy: Proxy,
    _secrets: SecretsDir,
}

/// A proxy in front of which these may speak for clients.
async fn world(trusted: &str) -> World {
    let (authority, secrets) = (Authority::new("authority"), SecretsDir::new());
    secrets.put("shop", &authority.issue(&["shop.example"]));
    let app = App::start("app").await;
    let routes = vec![
        terminated(route("shop.example", "/", &[app.address]), "shop"),
        passed_through(route("raw.example", "/", &[app.address])),
    ];
    let options = ProxyOptions {
        proxy_protocol: true,
        trusted_proxies: vec![trusted.parse().expect("a subnet")],
        ..ProxyOptions::default()
    };
    let proxy = Proxy::start_with(&snapshot_with(1, routes, options), |config| {
        config.https = Some(([127, 0, 0, 1], 0).into());
        config.secrets = secrets.secrets();
        config.limits.head_timeout = Duration::from_millis(500);
    });
    World { authority, app, proxy, _secrets: secrets }
}

fn forwarded_for(app: &App) -> String {
    app.last().headers["x-forwarded-for"].to_str().expect("text").to_owned()
}

async fn over_tls(world: &World, header: &[u8]) -> std::io::Result<String> {
    let mut tcp = TcpStream::connect(world.proxy.https).await?;
    tcp.write_all(header).await?;
    let client = world.authority.client(&["http/1.1"], None);
    let name = ServerName::try_from("shop.example").expect("a name");
    let mut stream = TlsConnector::from(client).connect(name, tcp).await?;
    exchange(&mut stream, std::str::from_utf8(REQUEST).expect("text")).await
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_on_both_ports() {
    let world = world("127.0.0.0/8").await;
    for (header, client) in [
        (NAMED.to_vec(), "203.0.113.9"),
        (version_2(1), "203.0.113.9"),
        // It speaks for itself, or does not know: then it is the client.
        (version_2(0), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let answer = raw(world.proxy.address, &[&header[..], REQUEST].concat()).await;
        assert!(answer.ends_with("app"), "{answer}");
        assert_eq!(forwarded_for(&world.app), client);
        let answer = over_tls(&world, &header).await.expect("an answer");
        assert!(answer.ends_with("app"), "{answer}");
        assert_eq!(forwarded_for(&world.app), client);
    }
    // In pieces, and with HTTP/2's preface to follow.
    let mut client = RawClient::connect(world.proxy.address).await;
    for piece in [&NAMED[..3], &NAMED[3..20], &NAMED[20..]] {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut settings = [0; 9];
    client.stream.read_exact(&mut settings).await.expect("SETTINGS");
    assert_eq!(settings[3], 4, "{settings:?}");
}

/// Sends bytes and reads to the end, which comes without an answer.
async fn ended_without_a_word(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    // A reset is an end as well.
    let _ = read.expect("an end in time");
    assert!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_trusted_proxy_must_name_somebody() {
    let world = world("127.0.0.0/8").await;
    let endless = [&b"PROXY TCP4 "[..], &[b' '; 200]].concat();
    for bytes in [
        REQUEST,
        b"PROXY TCP4 203.0.113.9\r\n\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 4444",
        b"PROXY",
        b"",
        &version_2(7),
        &endless,
    ] {
        ended_without_a_word(world.proxy.address, bytes).await;
        ended_without_a_word(world.proxy.https, bytes).await;
    }
    assert_eq!(world.app.count(), 0);
}

#[tokio::test]
async fn a_stranger_names_nobody() {
    let world = world("192.0.2.0/24").await;
    let answer = raw(world.proxy.address, &[NAMED, REQUEST].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let answer = raw(world.proxy.address, &[&version_2(1)[..], REQUEST].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(over_tls(&world, NAMED).await.is_err());
    assert!(over_tls(&world, &version_2(1)).await.is_err());
    assert_eq!(world.app.count(), 0);
    assert!(over_tls(&world, b"").await.expect("an answer").ends_with("app"));
    assert_eq!(forwarded_for(&world.app), "127.0.0.1");
}
