//! Clients that must show a certificate, and the ways round that which are closed.

mod common;

use std::sync::Arc;

use common::tls::{
    Authority, SecretsDir, connect, curl, exchange, get_on, passed_through, terminated,
    terminated_with,
};
use common::upstream::App;
use common::{Proxy, route, snapshot, snapshot_with, until};
use dovetail_routing::entry::{ProxyOptions, SslVerify};
use dovetail_routing::snapshot::Route;
use rustls::{ClientConfig, HandshakeKind};

/// `open.example` asks nobody; `west.example` and `east.example` ask for certificates of
/// two authorities; `raw.example` is passed through, `plain.example` has no TLS.
struct World {
    servers: Authority,
    west: Authority,
    east: Authority,
    secrets: SecretsDir,
    app: App,
    proxy: Proxy,
}

fn routes(app: &App) -> Vec<Route> {
    let to = |host: &str| route(host, "/", &[app.address]);
    vec![
        terminated(to("open.example"), "all"),
        terminated_with(to("west.example"), "all", Some("west.ca")),
        // Only one of its paths asks: the host is asked for.
        terminated_with(route("east.example", "/b", &[app.address]), "all", Some("east.ca")),
        route("east.example", "/", &[app.address]),
        passed_through(to("raw.example")),
        to("plain.example"),
    ]
}

impl World {
    async fn new() -> Self {
        let servers = Authority::new("servers");
        let (west, east) = (Authority::new("west"), Authority::new("east"));
        let secrets = SecretsDir::new();
        secrets.put("all", &servers.issue(&["open.example", "west.example", "east.example"]));
        secrets.write("servers.ca", &servers.pem);
        secrets.write("west.ca", &west.pem);
        secrets.write("east.ca", &east.pem);
        let app = App::start("app").await;
        let proxy = Proxy::start_with(&snapshot(1, routes(&app)), |config| {
            config.https = Some(([127, 0, 0, 1], 0).into());
            config.secrets = secrets.secrets();
        });
        Self { servers, west, east, secrets, app, proxy }
    }

    /// What a client with the certificate that `by` signed gets, or that it gets nothing.
    async fn get(&self, by: Option<&Authority>, name: &str) -> Option<String> {
        let proof = by.map(|by| by.issue(&["client"]));
        let client = self.servers.client(&["http/1.1"], proof.as_ref());
        self.get_as(&client, name, name).await
    }

    async fn get_as(&self, client: &Arc<ClientConfig>, name: &str, host: &str) -> Option<String> {
        let mut stream = connect(self.proxy.https, client, name).await.ok()?;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        // In TLS 1.3 a client hears of its refusal only after its handshake.
        exchange(&mut stream, &request).await.ok().filter(|answer| !answer.is_empty())
    }
}

#[tokio::test]
async fn only_clients_of_the_hosts_authority_are_served() {
    let world = World::new().await;
    let (west, east) = (Some(&world.west), Some(&world.east));
    for (by, name, served) in [
        (None, "open.example", true),
        (west, "open.example", true),
        (None, "west.example", false),
        (east, "west.example", false),
        (west, "west.example", true),
        (west, "east.example", false),
        (east, "east.example", true),
    ] {
        let answer = world.get(by, name).await;
        assert_eq!(answer.is_some_and(|answer| answer.ends_with("app")), served, "{name}");
    }
}

#[tokio::test]
async fn curl_shows_its_certificate() {
    let world = World::new().await;
    let ca = world.secrets.path().join("servers.ca");
    let proof = world.west.issue(&["client"]);
    let cert = world.secrets.write("client.pem", &proof.cert).display().to_string();
    let key = world.secrets.write("client.key", &proof.key).display().to_string();
    for version in ["1.2", "1.3"] {
        let only = ["--tlsv1.2", "--tls-max", version];
        let shown = [&only[..], &["--cert", &cert, "--key", &key]].concat();
        let (ok, text) = curl(world.proxy.https, &ca, "https://west.example/", &shown).await;
        assert!(ok && text == "app", "{version}: {text}");
        let (ok, text) = curl(world.proxy.https, &ca, "https://west.example/", &only).await;
        assert!(!ok && text.contains("alert"), "{version}: {text}");
    }
}

#[tokio::test]
async fn a_request_for_a_host_that_checks_otherwise_is_misdirected() {
    let world = World::new().await;
    let proof = world.west.issue(&["client"]);
    let client = world.servers.client(&["http/1.1"], Some(&proof));
    for (name, host, status) in [
        ("open.example", "open.example", 200),
        ("open.example", "OPEN.example.:443", 200),
        ("open.example", "plain.example", 200),
        ("open.example", "unknown.example", 503),
        ("open.example", "west.example", 421),
        ("open.example", "east.example", 421),
        ("open.example", "raw.example", 421),
        ("west.example", "west.example", 200),
        ("west.example", "east.example", 421),
        ("west.example", "open.example", 421),
        ("west.example", "plain.example", 421),
    ] {
        let answer = world.get_as(&client, name, host).await.expect("an answer");
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{host} over {name}: {answer}");
        if status == 421 {
            assert!(answer.contains("x-dovetail-error: misdirected"), "{answer}");
        }
    }
    assert!(world.app.seen().iter().all(|seen| seen.headers["host"] != "east.example"));
}

#[tokio::test]
async fn no_session_crosses_from_one_policy_to_another() {
    let world = World::new().await;
    let proof = world.west.issue(&["client"]);
    let client = world.servers.client(&["http/1.1"], Some(&proof));
    let kind = async |name: &str| {
        let mut stream = connect(world.proxy.https, &client, name).await.ok()?;
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        exchange(&mut stream, &request).await.ok()?;
        stream.get_ref().1.handshake_kind()
    };
    assert_eq!(kind("west.example").await, Some(HandshakeKind::Full));
    assert_eq!(kind("west.example").await, Some(HandshakeKind::Resumed));
    assert_eq!(kind("open.example").await, Some(HandshakeKind::Full));
    assert_eq!(kind("open.example").await, Some(HandshakeKind::Resumed));
    // From now on the open host asks, too: what was begun without a check ends there.
    let to = |host: &str| route(host, "/", &[world.app.address]);
    let closed = terminated_with(to("open.example"), "all", Some("west.ca"));
    world.proxy.swap(&snapshot(2, vec![closed]));
    assert_eq!(kind("open.example").await, Some(HandshakeKind::Full));
    assert_eq!(kind("open.example").await, Some(HandshakeKind::Resumed));
    // And then another authority's: a session of the first one's is worth nothing.
    let other = terminated_with(to("open.example"), "all", Some("east.ca"));
    world.proxy.swap(&snapshot(3, vec![other]));
    assert_ne!(kind("open.example").await, Some(HandshakeKind::Resumed));
    assert!(world.get(Some(&world.west), "open.example").await.is_none());
    // The same name with another content is another authority.
    let back = terminated_with(to("open.example"), "all", Some("west.ca"));
    world.proxy.swap(&snapshot(4, vec![back]));
    assert!(world.get(Some(&world.west), "open.example").await.is_some());
    world.secrets.write("west.ca", &world.east.pem);
    until("the new authority is in force", async || {
        world.get(Some(&world.east), "open.example").await.is_some()
    })
    .await;
    assert_ne!(kind("open.example").await, Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_a_problem_and_opens_nothing() {
    let world = World::new().await;
    world.secrets.write("broken.ca", "garbage");
    let to = |host: &str| route(host, "/", &[world.app.address]);
    let routes = vec![
        terminated(to("open.example"), "all"),
        terminated_with(to("new.example"), "all", Some("broken.ca")),
    ];
    world.proxy.swap(&snapshot(2, routes));
    let problems = world.proxy.problems().list();
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!((&*problem.label, &*problem.value), ("com.docker.lb.client_ca_cert", "broken.ca"));
    assert_eq!(&*problem.host, "new.example");
    assert!(problem.reason.contains("no PEM certificate"), "{problem:?}");
    assert!(world.get(Some(&world.west), "new.example").await.is_none());
    // Nor by the back door of a host that asks nobody.
    let client = world.servers.client(&["http/1.1"], None);
    let answer = world.get_as(&client, "open.example", "new.example").await;
    assert!(answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 421 ")));
}

#[tokio::test]
async fn a_host_that_is_to_ask_and_cannot_is_closed_until_it_can() {
    let world = World::new().await;
    assert!(world.get(None, "open.example").await.is_some());
    let to = |host: &str| route(host, "/", &[world.app.address]);
    let closed = terminated_with(to("open.example"), "all", Some("late.ca"));
    world.proxy.swap(&snapshot(2, vec![closed]));
    assert!(world.get(None, "open.example").await.is_none());
    assert!(world.get(Some(&world.west), "open.example").await.is_none());
    world.secrets.write("late.ca", &world.west.pem);
    until("the authority is in force", async || {
        world.get(Some(&world.west), "open.example").await.is_some()
    })
    .await;
    // Once it asks, its files may turn bad: what is in force asks as much.
    world.secrets.write("late.ca", "garbage");
    until("that is a problem", async || !world.proxy.problems().list().is_empty()).await;
    assert!(world.get(Some(&world.west), "open.example").await.is_some());
    assert!(world.get(None, "open.example").await.is_none());
}

#[tokio::test]
async fn the_configuration_may_let_clients_without_a_certificate_in() {
    let world = World::new().await;
    for (revision, verify, nobody, stranger) in
        [(2, SslVerify::Optional, true, false), (3, SslVerify::None, true, true)]
    {
        let options = ProxyOptions { ssl_verify: verify, ..ProxyOptions::default() };
        world.proxy.swap(&snapshot_with(revision, routes(&world.app), options));
        assert_eq!(world.get(None, "west.example").await.is_some(), nobody, "{verify:?}");
        let answer = world.get(Some(&world.east), "west.example").await;
        assert_eq!(answer.is_some(), stranger, "{verify:?}");
        assert!(world.get(Some(&world.west), "west.example").await.is_some());
    }
    // Now that nobody is asked, all hosts check alike.
    let client = world.servers.client(&["http/1.1"], None);
    let mut stream =
        connect(world.proxy.https, &client, "open.example").await.expect("a connection");
    assert!(get_on(&mut stream, "west.example", "/").await.ends_with("app"));
}
