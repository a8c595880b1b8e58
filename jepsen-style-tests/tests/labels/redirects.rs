//! Redirects (A21 to A24).

use dovetail_jepsen::swarm::ServiceConfig;
use dovetail_jepsen::upstream::UpstreamConfig;

use crate::certificates::Authority;
use crate::lab::{Lab, demo};

/// A21.
pub(crate) async fn a21_an_old_host_leads_to_the_new_one(lab: &Lab) {
    let labels = [
        ("hosts", "a21-old.example,a21-new.example"),
        ("redirects", "http://a21-old.example,http://a21-new.example"),
    ];
    let service = lab.publish("a21", 1, &labels).await;
    for proxy in [1, 2] {
        let answer = lab.curl(proxy).get("http://a21-old.example/").await;
        assert_eq!(answer.status, 302, "{answer:?}");
        assert_eq!(answer.header("location"), "http://a21-new.example/");
        for name in ["x-request-id", "x-proxy-id", "x-server-info"] {
            assert_ne!(answer.header(name), "", "{name} of {answer:?}");
        }
        assert_eq!(answer.header("x-upstream-addr"), "", "nobody was asked: {answer:?}");
        let followed = lab.curl(proxy).with(&["--location"]);
        let followed = followed.get("http://a21-old.example/ping").await;
        assert_eq!(followed.by(), service.tasks()[0].name);
    }
}

/// A22.
pub(crate) async fn a22_a_redirect_keeps_path_and_query(lab: &Lab) {
    let labels = [
        ("hosts", "a22-old.example,a22-new.example"),
        ("redirects", "http://a22-old.example,http://a22-new.example;"),
    ];
    let _service = lab.publish("a22", 1, &labels).await;
    let answer = lab.curl(1).get("http://a22-old.example/a?b=c").await;
    assert_eq!(answer.header("location"), "http://a22-new.example/a?b=c");
}

/// A23.
pub(crate) async fn a23_plain_http_leads_to_https(lab: &Lab) {
    let authority = Authority::new("a23");
    lab.certificate("a23", &authority.issue("a23.example"));
    let labels = [
        ("hosts", "a23.example"),
        ("ssl_cert", "a23.cert"),
        ("ssl_key", "a23.key"),
        ("redirects", "http://a23.example,https://a23.example"),
    ];
    let service = lab.publish("a23", 1, &labels).await;
    let ca = lab.file("a23.pem", &authority.pem);
    let curl = lab.curl(1).with(&["--cacert", &ca]);
    let answer = curl.get("http://a23.example/ping?a=b").await;
    assert_eq!(answer.status, 302, "{answer:?}");
    assert_eq!(answer.header("location"), "https://a23.example/ping?a=b");
    let answer = curl.get("https://a23.example/ping").await;
    assert_eq!(answer.by(), service.tasks()[0].name);
}

/// A24. Interlock documents that it does not work with passthrough; here it does: the
/// redirect is all that plain HTTP is answered with.
pub(crate) async fn a24_plain_http_of_a_passthrough_host_leads_to_https(lab: &Lab) {
    let authority = Authority::new("a24");
    let tls = Some(authority.issue("a24.example"));
    let labels = [
        ("hosts", "a24.example"),
        ("ssl_passthrough", "true"),
        ("redirects", "http://a24.example,https://a24.example"),
    ];
    let upstream = UpstreamConfig { tls, ..UpstreamConfig::default() };
    let service = lab.create(ServiceConfig { upstream, ..demo("a24", 1, &labels) }).await;
    let ca = lab.file("a24.pem", &authority.pem);
    let curl = lab.curl(2).with(&["--cacert", &ca]);
    let answer = curl.get("http://a24.example/a?b=c").await;
    assert_eq!(answer.status, 302, "{answer:?}");
    assert_eq!(answer.header("location"), "https://a24.example/a?b=c");
    let followed = curl.with(&["--location"]).get("http://a24.example/ping").await;
    assert_eq!(followed.by(), service.tasks()[0].name);
}
