//! TLS to applications: whose certificate is taken, what a refusal says, and what goes over it.

mod common;

use common::http2::{Http2Client, data};
use common::tls::{Authority, Leaf, SecretsDir};
use common::tls_app::TlsApp;
use common::upstream::App;
use common::{Proxy, RawClient, get, route, snapshot, until};
use dovetail_routing::snapshot::{Route, UpstreamTls};

const NAME: &str = "secure.internal";

fn over(mut route: Route, tls: UpstreamTls) -> Route {
    for service in &mut route.services {
        service.dial.tls = tls.clone();
        // What is refused here is refused again: it must not be taken out for it.
        service.dial.max_fails = 0;
    }
    route
}

fn verified(name: &str, ca: Option<&str>) -> UpstreamTls {
    let ca = ca.map(|ca| ca.parse().expect("a secret"));
    UpstreamTls::Verified { name: name.parse().expect("a name"), ca }
}

fn unverified() -> UpstreamTls {
    UpstreamTls::Unverified { name: NAME.parse().expect("a name") }
}

#[tokio::test]
async fn a_certificate_is_taken_for_its_name_and_by_its_authority_alone() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let app = TlsApp::start(&ours.issue(&[NAME]), &["h2", "http/1.1"]).await;
    let plain = App::start("plain").await;
    let secrets = SecretsDir::new();
    secrets.write("ours.ca", &ours.pem);
    secrets.write("theirs.ca", &theirs.pem);
    secrets.write("empty.ca", "");
    let at = |host, tls| over(route(host, "/", &[app.address]), tls);
    let routes = vec![
        at("good.example", verified(NAME, Some("ours.ca"))),
        at("any.example", unverified()),
        at("name.example", verified("other.internal", Some("ours.ca"))),
        at("authority.example", verified(NAME, Some("theirs.ca"))),
        at("machine.example", verified(NAME, None)),
        at("missing.example", verified(NAME, Some("missing.ca"))),
        at("empty.example", verified(NAME, Some("empty.ca"))),
        over(route("plain.example", "/", &[plain.address]), unverified()),
    ];
    let directory = tempfile::tempdir().expect("a folder");
    let log = directory.path().join("access.log");
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.secrets = secrets.secrets();
        config.access_log = dovetail_proxy::access_log::AccessLogTarget::File(log.clone());
    });
    for host in ["good.example", "any.example"] {
        let answer = get(proxy.address, host, "/x").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "secure"), "{host}");
        assert_eq!(app.last().headers["host"], host);
    }
    let asked = app.names.lock().expect("not poisoned").clone();
    assert_eq!(asked, [Some(NAME.to_owned()), Some(NAME.to_owned())], "by this name");
    let refused = [
        ("name.example", "not valid for name"),
        ("authority.example", "UnknownIssuer"),
        ("machine.example", ""),
        ("missing.example", "missing.ca"),
        ("empty.example", "holds no PEM certificate"),
        ("plain.example", "TLS: "),
    ];
    for (host, _) in refused {
        let answer = get(proxy.address, host, "/x").await;
        let kind = answer.header("x-dovetail-error");
        assert_eq!((answer.status, kind), (502, Some("upstream_tls")), "{host}");
        assert!(!answer.body.contains(NAME), "a stranger learns no names: {}", answer.body);
    }
    // The reason is for the operator: in the log, and as a problem where files are wrong.
    let mut lines = Vec::new();
    until("the access log is written", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        lines = text.lines().map(ToOwned::to_owned).collect();
        lines.len() == 2 + refused.len()
    })
    .await;
    for (host, why) in refused {
        let line = lines.iter().find(|line| line.contains(host)).expect("a line");
        assert!(line.contains(why), "{host}: {line}");
    }
    let problems = proxy.problems().list();
    let values: Vec<_> = problems.iter().map(|problem| &*problem.value).collect();
    assert!(values.contains(&"missing.ca") && values.contains(&"empty.ca"), "{problems:?}");
    assert!(!values.contains(&"ours.ca") && !values.contains(&"theirs.ca"), "{problems:?}");
}

#[tokio::test]
async fn an_application_may_sign_for_itself() {
    let signed = |name: &str, change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        change(&mut params);
        let cert = params.self_signed(&key).expect("signed").pem();
        Leaf { cert, key: key.serialize_pem() }
    };
    let (good, other) = (signed(NAME, &|_| {}), signed("other.internal", &|_| {}));
    let old = signed(NAME, &|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let secrets = SecretsDir::new();
    let mut routes = Vec::new();
    let mut apps = Vec::new();
    // What each shows, and what it is checked by.
    for (host, shown, ca) in [
        ("good.example", &good, &good),
        ("name.example", &other, &other),
        ("old.example", &old, &old),
        ("stranger.example", &good, &other),
    ] {
        let app = TlsApp::start(shown, &[]).await;
        secrets.write(&format!("{host}.ca"), &ca.cert);
        let tls = verified(NAME, Some(&format!("{host}.ca")));
        routes.push(over(route(host, "/", &[app.address]), tls));
        apps.push(app);
    }
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.secrets = secrets.secrets();
    });
    assert_eq!(get(proxy.address, "good.example", "/").await.body, "secure");
    for host in ["name.example", "old.example", "stranger.example"] {
        let answer = get(proxy.address, host, "/").await;
        let kind = answer.header("x-dovetail-error");
        assert_eq!((answer.status, kind), (502, Some("upstream_tls")), "{host}");
    }
}

#[tokio::test]
async fn connections_are_kept_apart_by_their_terms() {
    let ours = Authority::new("ours");
    let app = TlsApp::start(&ours.issue(&[NAME]), &[]).await;
    let secrets = SecretsDir::new();
    secrets.write("ours.ca", &ours.pem);
    let at = |host, tls| over(route(host, "/", &[app.address]), tls);
    let routes = vec![
        at("any.example", unverified()),
        at("checked.example", verified(NAME, Some("ours.ca"))),
        at("strict.example", verified("other.internal", Some("ours.ca"))),
    ];
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.secrets = secrets.secrets();
    });
    let mut client = RawClient::connect(proxy.address).await;
    for _ in 0..3 {
        for host in ["any.example", "checked.example"] {
            assert_eq!(client.get(host, "/").await.status, 200, "{host}");
        }
        // What others checked less is not used for it.
        assert_eq!(client.get("strict.example", "/").await.status, 502);
    }
    assert_eq!(app.handshakes(), 2, "one connection each, used again");
}

#[tokio::test]
async fn authorities_are_read_again_when_their_file_changes() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let app = TlsApp::start(&ours.issue(&[NAME]), &[]).await;
    let secrets = SecretsDir::new();
    secrets.write("backend.ca", &theirs.pem);
    let routes =
        vec![over(route("shop.example", "/", &[app.address]), verified(NAME, Some("backend.ca")))];
    let proxy = Proxy::start_with(&snapshot(1, routes), |config| {
        config.secrets = secrets.secrets();
    });
    let mut client = RawClient::connect(proxy.address).await;
    assert_eq!(client.get("shop.example", "/").await.status, 502);
    secrets.write("backend.ca", &ours.pem);
    until("the new authority is in force", async || {
        client.get("shop.example", "/").await.status == 200
    })
    .await;
    // And back: what was connected under the old one is not used any more.
    secrets.write("backend.ca", &theirs.pem);
    until("the old authority is in force", async || {
        client.get("shop.example", "/").await.status == 502
    })
    .await;
    secrets.remove("backend.ca");
    until("it is a problem", async || !proxy.problems().list().is_empty()).await;
    secrets.write("backend.ca", &ours.pem);
    until("all is well again", async || {
        client.get("shop.example", "/").await.status == 200 && proxy.problems().list().is_empty()
    })
    .await;
}

#[tokio::test]
async fn http_2_over_tls_is_settled_in_the_handshake() {
    let ours = Authority::new("ours");
    let both = TlsApp::start(&ours.issue(&[NAME]), &["h2", "http/1.1"]).await;
    let old = TlsApp::start(&ours.issue(&[NAME]), &["http/1.1"]).await;
    let silent = TlsApp::start(&ours.issue(&[NAME]), &[]).await;
    let at = |host, app: &TlsApp| over(route(host, "/", &[app.address]), unverified());
    let routes =
        vec![at("shop.example", &both), at("old.example", &old), at("silent.example", &silent)];
    let proxy = Proxy::start(&snapshot(1, routes));
    let mut client = Http2Client::connect(proxy.address).await;
    // gRPC speaks HTTP/2 to it, others HTTP/1.1.
    let mut begun = client.begin("/echo", false).await;
    let mut body = begun.head().await.expect("an answer").into_body();
    begun.send.send_data("over TLS".into(), true).expect("sent");
    assert_eq!(data(&mut body).await.expect("more").expect("data"), "over TLS");
    assert_eq!(get(proxy.address, "shop.example", "/x").await.body, "secure");
    for host in ["old.example", "silent.example"] {
        let request = http::Request::post(format!("http://{host}/"))
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
        let mut sender = client.sender.clone().ready().await.expect("it takes requests");
        let (answer, _) = sender.send_request(request, true).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert_eq!(answer.headers()["x-dovetail-error"], "upstream_tls", "{host}");
    }
}

#[tokio::test]
async fn large_bodies_and_tunnels_go_over_tls() {
    let ours = Authority::new("ours");
    let app = TlsApp::start(&ours.issue(&[NAME]), &["http/1.1"]).await;
    let routes = vec![over(route("shop.example", "/", &[app.address]), unverified())];
    let proxy = Proxy::start(&snapshot(1, routes));
    let mut client = RawClient::connect(proxy.address).await;
    assert_eq!(client.get("shop.example", "/bytes/5000000").await.body.len(), 5_000_000);
    client
        .send("POST /echo HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2000000\r\n\r\n")
        .await;
    client.send(vec![b'x'; 2_000_000]).await;
    assert_eq!(client.answer(false).await.expect("an answer").body.len(), 2_000_000);
    client
        .send("GET /upgrade HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly ")
        .await;
    assert_eq!(client.answer(false).await.expect("an answer").status, 101);
    client.send("and late").await;
    let mut echoed = String::new();
    while echoed.len() < 14 {
        echoed += &client.some().await;
    }
    assert_eq!(echoed, "early and late");
    assert_eq!(app.handshakes(), 1);
}
