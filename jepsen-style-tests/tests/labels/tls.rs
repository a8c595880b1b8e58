//! TLS: ended here, renewed, passed through, and with certificates of clients (A27 to A31).

use dovetail_jepsen::eventually;
use dovetail_jepsen::swarm::ServiceConfig;
use dovetail_jepsen::upstream::UpstreamConfig;

use crate::certificates::{Authority, handshake};
use crate::lab::{DEADLINE, Lab, Service, demo};

/// A service whose TLS ends at the proxy, with the secrets `NAME.cert` and `NAME.key`.
async fn terminated<'l>(lab: &'l Lab, name: &str, authority: &Authority) -> Service<'l> {
    let host = format!("{name}.example");
    lab.certificate(name, &authority.issue(&host));
    let (cert, key) = (format!("{name}.cert"), format!("{name}.key"));
    let labels = [("hosts", &*host), ("ssl_cert", &*cert), ("ssl_key", &*key)];
    lab.publish(name, 1, &labels).await
}

/// A27. Interlock offers TLS 1.2 alone; ours offers 1.3 as well, and HTTP/2.
pub(crate) async fn a27_tls_ends_at_the_proxy_and_plain_http_stays(lab: &Lab) {
    let authority = Authority::new("a27");
    let service = terminated(lab, "a27", &authority).await;
    let ca = lab.file("a27.pem", &authority.pem);
    let task = service.tasks().pop().expect("one task");
    for proxy in [1, 2] {
        let curl = lab.curl(proxy).with(&["--cacert", &ca]);
        for (option, http) in [("--http1.1", "1.1"), ("--http2", "2"), ("--tls-max=1.2", "2")] {
            let option: Vec<&str> = option.split('=').collect();
            let answer = curl.clone().with(&option).get("https://a27.example/headers").await;
            assert_eq!(answer.by(), task.name);
            assert_eq!(answer.http, http, "{option:?}");
            assert_eq!(answer.header("x-upstream-addr"), task.addr.to_string());
            let seen = answer.json();
            assert_eq!(seen["scheme"], "http", "decrypted: {seen}");
            assert_eq!(seen["headers"]["x-forwarded-proto"][0], "https");
        }
        let shown = handshake(lab.cluster.proxy_tls_addr(proxy), Some("a27.example")).await;
        assert!(shown.completed && shown.subject.ends_with("CN=a27.example"), "{shown:?}");
        let plain = curl.get("http://a27.example/headers").await;
        assert_eq!(plain.json()["headers"]["x-forwarded-proto"][0], "http");
    }
}

/// A28: refused, without a word about which certificates there are.
pub(crate) async fn a28_a_handshake_without_a_known_name_is_refused(lab: &Lab) {
    let authority = Authority::new("a28");
    let _service = terminated(lab, "a28", &authority).await;
    let addr = lab.cluster.proxy_tls_addr(1);
    assert!(handshake(addr, Some("a28.example")).await.completed);
    for name in [None, Some("unknown.example")] {
        let refused = handshake(addr, name).await;
        assert!(!refused.completed, "{name:?}: {}", refused.said);
        assert_eq!(refused.subject, "", "no certificate is shown");
    }
}

/// A29, under load by TLS: no connection is refused while the certificate changes.
pub(crate) async fn a29_a_new_secret_brings_a_new_certificate_without_a_gap(lab: &Lab) {
    let (old, new) = (Authority::new("a29-old"), Authority::new("a29-new"));
    let service = terminated(lab, "a29", &old).await;
    let both = lab.file("a29.pem", &format!("{}{}", old.pem, new.pem));
    let new_only = lab.file("a29-new.pem", &new.pem);
    // Connection after connection, for as long as it takes.
    let curl = lab.curl(1).with(&["--cacert", &both, "--no-keepalive", "--rate", "6000/m"]);
    let curl = curl.with(&["--header", "Connection: close", "--http1.1"]);
    let traffic = async {
        let mut answered = 0;
        for _ in 0..3 {
            let answers = curl.all("https://a29.example/ping?[1-100]").await;
            assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
            answered += answers.len();
        }
        answered
    };
    let renewal = async {
        lab.certificate("a29-renewed", &new.issue("a29.example"));
        service.label(&[("ssl_cert", "a29-renewed.cert"), ("ssl_key", "a29-renewed.key")]).await;
        for proxy in [1, 2] {
            eventually(DEADLINE, || {
                let curl = lab.curl(proxy).with(&["--cacert", &new_only]);
                async move { curl.try_get("https://a29.example/ping").await }
            })
            .await;
        }
    };
    let (answered, ()) = futures_util::join!(traffic, renewal);
    println!("{answered} TLS connections around the renewal, none refused");
    assert_eq!(lab.problems(&service).await, []);
}

/// A30. Interlock needs a network label for it; here any service can.
pub(crate) async fn a30_a_passthrough_service_shows_its_own_certificate(lab: &Lab) {
    let authority = Authority::new("a30");
    let pem = authority.issue("a30.example");
    let upstream = UpstreamConfig { tls: Some(pem), ..UpstreamConfig::default() };
    let labels = [("hosts", "a30.example"), ("ssl_passthrough", "true")];
    let service = lab.create(ServiceConfig { upstream, ..demo("a30", 2, &labels) }).await;
    let ca = lab.file("a30.pem", &authority.pem);
    for proxy in [1, 2] {
        let curl = lab.curl(proxy).with(&["--cacert", &ca]);
        let answer = curl.get("https://a30.example/headers").await;
        let seen = answer.json();
        assert_eq!(seen["scheme"], "https", "encrypted to the end: {seen}");
        let named = service.tasks().iter().any(|task| task.name == answer.by());
        assert!(named, "{answer:?}");
        for name in ["x-request-id", "x-proxy-id", "x-server-info", "x-upstream-addr"] {
            assert_eq!(answer.header(name), "", "{name} of {answer:?}");
        }
        assert!(seen["headers"]["x-forwarded-for"].is_null(), "{seen}");
        assert_eq!(curl.get("http://a30.example/").await.status, 503, "no plain HTTP");
    }
}

/// A31.
pub(crate) async fn a31_only_clients_with_a_certificate_get_in(lab: &Lab) {
    let (servers, clients) = (Authority::new("a31"), Authority::new("a31-clients"));
    lab.certificate("a31", &servers.issue("a31.example"));
    lab.secret("a31.client-ca", &clients.pem);
    let labels = [
        ("hosts", "a31.example"),
        ("ssl_cert", "a31.cert"),
        ("ssl_key", "a31.key"),
        ("client_ca_cert", "a31.client-ca"),
    ];
    let service = lab.publish("a31", 1, &labels).await;
    let ca = lab.file("a31.pem", &servers.pem);
    let curl = |signer: &Authority, name: &str| {
        let pem = signer.issue(name);
        let cert = lab.file(&format!("{name}.cert"), &pem.cert);
        let key = lab.file(&format!("{name}.key"), &pem.key);
        lab.curl(1).with(&["--cacert", &ca, "--cert", &cert, "--key", &key])
    };
    let answer = curl(&clients, "a31-friend").get("https://a31.example/ping").await;
    assert_eq!(answer.by(), service.tasks()[0].name);
    for refused in [lab.curl(1).with(&["--cacert", &ca]), curl(&servers, "a31-stranger")] {
        let refused = refused.try_get("https://a31.example/ping").await;
        let reason = refused.expect_err("the handshake is refused");
        assert!(reason.contains("alert"), "{reason}");
    }
    // Plain HTTP would be a way round it.
    let plain = lab.curl(1).get("http://a31.example/ping").await;
    assert_eq!(plain.status, 302, "{plain:?}");
    assert!(plain.header("location").starts_with("https://a31.example"), "{plain:?}");
}
