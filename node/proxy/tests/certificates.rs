//! Certificates as operators' folders bring them: unusable ones, new ones, ones for another host.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::process::Process;
use common::tls::{Authority, Leaf, SecretsDir, connect, get_on, get_tls, s_client, terminated};
use common::upstream::App;
use common::{Proxy, get, route, snapshot, snapshot_with, until};
use dovetail_proxy::problems::ProxyProblem;
use dovetail_routing::entry::ProxyOptions;
use dovetail_routing::snapshot::{Certificate, Tls};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// A proxy whose hosts' certificates are in a folder.
struct World {
    authority: Authority,
    secrets: SecretsDir,
    app: App,
}

impl World {
    async fn new() -> Self {
        Self {
            authority: Authority::new("authority"),
            secrets: SecretsDir::new(),
            app: App::start("app").await,
        }
    }

    fn leaf(&self) -> Leaf {
        self.authority.issue(&["shop.example"])
    }

    /// A proxy for `shop.example` with the certificate of this name.
    fn proxy(&self, name: &str) -> Proxy {
        let routes = vec![terminated(route("shop.example", "/", &[self.app.address]), name)];
        Proxy::start_with(&snapshot(1, routes), |config| {
            config.https = Some(([127, 0, 0, 1], 0).into());
            config.secrets = self.secrets.secrets();
        })
    }

    /// The certificate that a handshake shows, if there is one.
    async fn shown(&self, proxy: &Proxy) -> Option<CertificateDer<'static>> {
        let client = self.authority.client(&["http/1.1"], None);
        let stream = connect(proxy.https, &client, "shop.example").await.ok()?;
        let shown = stream.get_ref().1.peer_certificates()?.first()?;
        Some(shown.clone().into_owned())
    }
}

fn der(leaf: &Leaf) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(leaf.cert.as_bytes()).expect("PEM")
}

fn only(problems: Vec<ProxyProblem>) -> ProxyProblem {
    let [problem] = problems.try_into().expect("one problem");
    problem
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_a_problem_and_is_refused() {
    let world = World::new().await;
    let now = OffsetDateTime::now_utc();
    let good = world.leaf();
    let expired = world.authority.issue_with(&["shop.example"], |params| {
        params.not_before = now - Duration::days(2);
        params.not_after = now - Duration::days(1);
    });
    let future = world.authority.issue_with(&["shop.example"], |params| {
        params.not_before = now + Duration::days(1);
        params.not_after = now + Duration::days(2);
    });
    let cases = [
        (&expired.cert, &expired.key, "com.docker.lb.ssl_cert", "expired at"),
        (&future.cert, &future.key, "com.docker.lb.ssl_cert", "not valid before"),
        (&good.cert, &expired.key, "com.docker.lb.ssl_key", "does not match"),
        (&good.cert, &good.cert, "com.docker.lb.ssl_key", "no PEM key"),
        (&"garbage".to_owned(), &good.key, "com.docker.lb.ssl_cert", "no PEM certificate"),
    ];
    for (cert, key, label, reason) in cases {
        world.secrets.write("shop.key", key);
        world.secrets.write("shop.cert", cert);
        let proxy = world.proxy("shop");
        let problem = only(proxy.problems().list());
        assert_eq!((&*problem.host, &*problem.service), ("shop.example", "service-0"));
        assert_eq!(&*problem.label, label, "{problem:?}");
        assert!(problem.value.starts_with("shop."), "{problem:?}");
        assert!(problem.reason.contains(reason), "{problem:?}");
        assert!(problem.reason.contains("TLS for this host is refused"), "{problem:?}");
        let (ok, text) = s_client(proxy.https, &["-servername", "shop.example"]).await;
        assert!(!ok && text.contains("unrecognized name"), "{text}");
        assert_eq!(get(proxy.address, "shop.example", "/").await.body, "app", "plain HTTP goes on");
        // It heals by itself, without a new snapshot.
        world.secrets.put("shop", &good);
        until("the good pair is in force", async || world.shown(&proxy).await.is_some()).await;
        until("the problem is cleared", async || proxy.problems().list().is_empty()).await;
    }
    let proxy = world.proxy("missing");
    let problem = only(proxy.problems().list());
    assert!(problem.reason.contains("missing.cert"), "{problem:?}");
    let nowhere = Proxy::start_with(
        &snapshot(1, vec![terminated(route("shop.example", "/", &[world.app.address]), "shop")]),
        |config| config.https = Some(([127, 0, 0, 1], 0).into()),
    );
    let problem = only(nowhere.problems().list());
    assert!(problem.reason.contains("--secrets-dir"), "{problem:?}");
}

#[tokio::test]
async fn what_cannot_be_used_leaves_the_certificate_before_in_force() {
    let world = World::new().await;
    let first = world.leaf();
    world.secrets.put("shop", &first);
    let proxy = world.proxy("shop");
    assert_eq!(world.shown(&proxy).await, Some(der(&first)));
    // The files turn bad, one is gone, a new snapshot names others that are not there.
    world.secrets.write("shop.cert", "garbage");
    let stays = async |what: &str| {
        until(what, async || !proxy.problems().list().is_empty()).await;
        let problem = only(proxy.problems().list());
        assert!(problem.reason.contains("stays in force"), "{problem:?}");
        assert_eq!(world.shown(&proxy).await, Some(der(&first)), "{what}");
    };
    stays("garbage is a problem").await;
    world.secrets.put("shop", &first);
    until("it is good again", async || proxy.problems().list().is_empty()).await;
    world.secrets.remove("shop.key");
    stays("a missing key is a problem").await;
    for revision in [2, 3] {
        let other = terminated(route("shop.example", "/", &[world.app.address]), "other");
        // Other options make what is in force anew.
        let options = ProxyOptions {
            ssl_ciphers: vec!["TLS_AES_128_GCM_SHA256".into()],
            ..ProxyOptions::default()
        };
        proxy.swap(&snapshot_with(revision, vec![other], options));
        stays("a missing secret is a problem").await;
    }
    let second = world.leaf();
    world.secrets.put("other", &second);
    until("the new one is in force", async || world.shown(&proxy).await == Some(der(&second)))
        .await;
    assert!(proxy.problems().list().is_empty());
    // A host that left has no certificate to come back to.
    proxy.swap(&snapshot(4, vec![]));
    let missing = terminated(route("shop.example", "/", &[world.app.address]), "missing");
    proxy.swap(&snapshot(5, vec![missing]));
    assert_eq!(world.shown(&proxy).await, None);
}

#[tokio::test]
async fn a_certificate_for_another_host_is_a_problem_and_in_use() {
    let world = World::new().await;
    world.secrets.put("shop", &world.authority.issue(&["other.example"]));
    let proxy = world.proxy("shop");
    let problem = only(proxy.problems().list());
    assert!(problem.reason.contains("for other.example, not for shop.example"), "{problem:?}");
    let (_, text) = s_client(proxy.https, &["-servername", "shop.example"]).await;
    assert!(text.contains("CN = other.example"), "{text}");
}

#[tokio::test]
async fn key_and_chain_may_stand_in_one_file() {
    let world = World::new().await;
    let leaf = world.leaf();
    world.secrets.write("shop.pem", &format!("{}{}{}", leaf.key, leaf.cert, world.authority.pem));
    let mut of_one_file = route("shop.example", "/", &[world.app.address]);
    let cert = "shop.pem".parse().expect("a name");
    of_one_file.tls = Tls::Terminate(Certificate { cert, key: None, client_ca: None });
    let proxy = Proxy::start_with(&snapshot(1, vec![of_one_file]), |config| {
        config.https = Some(([127, 0, 0, 1], 0).into());
        config.secrets = world.secrets.secrets();
    });
    assert_eq!(world.shown(&proxy).await, Some(der(&leaf)));
    assert!(proxy.problems().list().is_empty());
}

#[tokio::test]
async fn a_certificate_is_swapped_under_load_and_no_request_fails() {
    let world = World::new().await;
    let first = world.leaf();
    world.secrets.put("shop", &first);
    let proxy = world.proxy("shop");
    let client = world.authority.client(&["http/1.1"], None);
    let mut held = connect(proxy.https, &client, "shop.example").await.expect("a connection");
    assert!(get_on(&mut held, "shop.example", "/").await.ends_with("app"));
    let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
        // Each with a memory of sessions of its own.
        let client = world.authority.client(&["http/1.1"], None);
        let https = proxy.https;
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = get_tls(https, &client, "shop.example", "/").await;
                let answer = answer.expect("no request fails");
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut leaf = first;
    for _ in 0..3 {
        let next = world.leaf();
        assert_ne!(der(&leaf), der(&next));
        leaf = next;
        let before = served.load(Ordering::Relaxed);
        // The key first: for a moment the two do not match.
        world.secrets.put("shop", &leaf);
        until("the new certificate is shown", async || {
            world.shown(&proxy).await == Some(der(&leaf))
        })
        .await;
        until("requests go on", async || served.load(Ordering::Relaxed) > before + 10).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("no request failed");
    }
    assert!(get_on(&mut held, "shop.example", "/").await.ends_with("app"), "it still stands");
}

#[tokio::test]
async fn the_executable_takes_tls_and_counts_its_problems() {
    let world = World::new().await;
    world.secrets.put("shop", &world.leaf());
    let routes = vec![
        terminated(route("shop.example", "/", &[world.app.address]), "shop"),
        terminated(route("other.example", "/", &[world.app.address]), "missing"),
    ];
    let dir = world.secrets.path().display().to_string();
    let proxy = Process::start(&snapshot(1, routes), &["--secrets-dir", &dir]).await;
    let client = world.authority.client(&["http/1.1"], None);
    let answer = get_tls(proxy.https, &client, "shop.example", "/x").await;
    assert!(answer.expect("served").ends_with("app"));
    let metrics = get(proxy.admin, "admin", "/metrics").await.body;
    for metric in [
        "dovetail_proxy_problems 1",
        "dovetail_proxy_certificate_expiry_timestamp_seconds ",
        "dovetail_proxy_tls_handshakes_total{result=\"full\"} 1",
    ] {
        assert!(metrics.contains(metric), "{metric} is not in\n{metrics}");
    }
}
