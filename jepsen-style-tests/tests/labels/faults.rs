//! What goes wrong with labels: the route that worked goes on working under load, and the
//! one who is to blame is named in `dovetail problems`.
//!
//! The same faults are put to Traefik in `beside_traefik.rs`.

use std::collections::BTreeSet;

use dovetail_jepsen::eventually;
use dovetail_jepsen::load::Load;
use dovetail_jepsen::status::Problem;

use crate::certificates::Authority;
use crate::lab::{DEADLINE, Lab, Service, unharmed};

/// Two services that work, and load on both.
struct Scene<'l> {
    lab: &'l Lab,
    /// The one to which something happens.
    victim: Service<'l>,
    load: Load,
    bystander: (Service<'l>, Load),
}

impl<'l> Scene<'l> {
    async fn start(lab: &'l Lab, name: &str) -> Self {
        let host = |name: &str| format!("{name}.example");
        let victim = lab.publish(name, 2, &[("hosts", &host(name))]).await;
        let other = format!("{name}-bystander");
        let bystander = lab.publish(&other, 1, &[("hosts", &host(&other))]).await;
        let (load, beside) = (lab.load(&host(name)), lab.load(&host(&other)));
        Self { lab, victim, load, bystander: (bystander, beside) }
    }

    /// Waits until a service is named with what its label says.
    async fn named(&self, service: &str, label: &str, value: &str) -> Problem {
        named(self.lab, service, label, value).await
    }

    /// Both still answer after all, and never did not.
    async fn unharmed(self) {
        for proxy in [1, 2] {
            for service in [&self.victim, &self.bystander.0] {
                let url = format!("http://{}.example/ping", service.name);
                let answer = self.lab.curl(proxy).get(&url).await;
                assert!(answer.by().starts_with(&*service.name), "{answer:?}");
            }
        }
        unharmed(self.load, &self.victim.name).await;
        unharmed(self.bystander.1, &self.bystander.0.name).await;
    }
}

async fn named(lab: &Lab, service: &str, label: &str, value: &str) -> Problem {
    let label = format!("com.docker.lb.{label}");
    let problem = eventually(DEADLINE, || async {
        let problems = lab.problems(service).await;
        let found = problems.iter().find(|one| one.label == label && one.value == value);
        found.cloned().ok_or_else(|| format!("no {service}, {label}, {value:?}: {problems:?}"))
    })
    .await;
    println!("{}: {} {:?}: {}", problem.service, problem.label, problem.value, problem.reason);
    problem
}

/// An option that nobody knows.
pub(crate) async fn a_misspelt_label_changes_nothing(lab: &Lab) {
    let scene = Scene::start(lab, "misspelt").await;
    scene.victim.label(&[("context_rot", "/app")]).await;
    let problem = scene.named("misspelt", "context_rot", "/app").await;
    assert!(problem.reason.contains("com.docker.lb.context_root"), "{problem:?}");
    scene.unharmed().await;
}

/// The very label that publishes.
pub(crate) async fn a_misspelt_hosts_label_keeps_the_route(lab: &Lab) {
    let scene = Scene::start(lab, "misspelt-hosts").await;
    let stand_in = lab.swarm.stand_in();
    let rename = stand_in.update_service("misspelt-hosts", |spec| {
        let hosts = spec.labels.remove("com.docker.lb.hosts").unwrap_or_default();
        spec.labels.insert("com.docker.lb.host".to_owned(), hosts);
    });
    rename.expect("the service is there");
    lab.settled().await;
    let problem = scene.named("misspelt-hosts", "host", "misspelt-hosts.example").await;
    assert!(problem.reason.contains("com.docker.lb.hosts"), "{problem:?}");
    scene.unharmed().await;
}

pub(crate) async fn an_invalid_port_keeps_the_route(lab: &Lab) {
    let scene = Scene::start(lab, "invalid-port").await;
    for port in ["0", "99999", "http", "8080,8081"] {
        scene.victim.label(&[("port", port)]).await;
        scene.named("invalid-port", "port", port).await;
    }
    scene.unharmed().await;
}

pub(crate) async fn a_removed_port_label_keeps_the_route(lab: &Lab) {
    let scene = Scene::start(lab, "removed-port").await;
    scene.victim.unlabel("port").await;
    scene.named("removed-port", "port", "").await;
    // New tasks serve it, too: what was valid last stays in force, with live upstreams.
    scene.victim.scale(3).await;
    let answers = lab.curl(1).all("http://removed-port.example/ping?[1-30]").await;
    let by: BTreeSet<&str> = answers.iter().map(|answer| answer.by()).collect();
    assert_eq!(by.len(), 3);
    scene.unharmed().await;
}

pub(crate) async fn of_two_services_with_one_host_the_first_ones_options_hold(lab: &Lab) {
    let scene = Scene::start(lab, "one-host").await;
    let labels = [
        ("hosts", "one-host.example"),
        ("sticky_session_cookie", "session"),
        ("redirects", "http://one-host.example,http://one-host-bystander.example"),
    ];
    let rival = lab.publish("one-host-rival", 1, &labels).await;
    for (label, value) in
        [("sticky_session_cookie", "session"), ("redirects", "http://one-host-bystander.example")]
    {
        let problem = scene.named("one-host-rival", label, value).await;
        assert!(problem.reason.contains("one-host"), "{problem:?}");
    }
    assert_eq!(lab.problems("one-host").await, [], "the loser is named, not the winner");
    // Both serve it, in turn (with the load between), by the first one's options.
    let answers = lab.curl(1).all("http://one-host.example/ping?[1-30]").await;
    let by_rival = answers.iter().filter(|answer| answer.by().starts_with("one-host-rival"));
    let by_rival = by_rival.count();
    assert!((5..=15).contains(&by_rival), "about a third: {by_rival} of 30");
    drop(rival);
    lab.settled().await;
    scene.unharmed().await;
}

/// The one fault after which nobody is left to answer: that is said, and never a 404.
pub(crate) async fn a_service_without_replicas_answers_503_and_comes_back(lab: &Lab) {
    let Scene { victim, load, bystander, .. } = Scene::start(lab, "no-replicas").await;
    drop(load);
    victim.scale(0).await;
    for proxy in [1, 2] {
        // A task that Swarm stops is asked until it is seen to be gone: 502 for a moment.
        let answer = eventually(DEADLINE, || async {
            let answer = lab.curl(proxy).get("http://no-replicas.example/").await;
            assert_ne!(answer.status, 404, "{answer:?}");
            if answer.status == 503 { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
        .await;
        assert_eq!(answer.header("x-dovetail-error"), "no_upstream");
        assert_eq!(answer.header("retry-after"), "1");
    }
    victim.scale(2).await;
    for proxy in [1, 2] {
        lab.curl(proxy).get("http://no-replicas.example/").await.by();
    }
    unharmed(bystander.1, "the bystander").await;
}

pub(crate) async fn an_unusable_host_keeps_the_route(lab: &Lab) {
    let scene = Scene::start(lab, "unusable-host").await;
    for host in ["not a host!", "unusable-host.example:80", "http://unusable-host.example", ""] {
        scene.victim.label(&[("hosts", host)]).await;
        scene.named("unusable-host", "hosts", host).await;
    }
    scene.unharmed().await;
}

pub(crate) async fn a_broken_certificate_leaves_the_old_one(lab: &Lab) {
    let scene = Scene::start(lab, "broken").await;
    let authority = Authority::new("broken");
    lab.certificate("broken", &authority.issue("broken.example"));
    scene.victim.label(&[("ssl_cert", "broken.cert"), ("ssl_key", "broken.key")]).await;
    let ca = lab.file("broken.pem", &authority.pem);
    let secured = async || {
        for proxy in [1, 2] {
            let curl = lab.curl(proxy).with(&["--cacert", &ca]);
            curl.get("https://broken.example/ping").await.by();
        }
    };
    secured().await;
    let other = authority.issue("broken.example");
    lab.secret("broken-text.cert", "-----BEGIN CERTIFICATE-----\nthis is none\n");
    lab.secret("broken-mixed.cert", &other.cert);
    for (cert, label, value) in [
        ("broken-text.cert", "ssl_cert", "broken-text.cert"),
        // The key is that of another certificate.
        ("broken-mixed.cert", "ssl_key", "broken.key"),
        ("broken-missing.cert", "ssl_cert", "broken-missing.cert"),
    ] {
        scene.victim.label(&[("ssl_cert", cert)]).await;
        scene.named("broken", label, value).await;
        secured().await;
    }
    scene.victim.label(&[("ssl_cert", "broken.cert")]).await;
    secured().await;
    eventually(DEADLINE, || async {
        let problems = lab.problems("broken").await;
        if problems.is_empty() { Ok(()) } else { Err(format!("{problems:?}")) }
    })
    .await;
    scene.unharmed().await;
}
