//! Traefik as a process, with a Docker stand-in of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dovetail_jepsen::cluster::{Cluster, ClusterConfig};
use dovetail_jepsen::eventually;
use dovetail_jepsen::supervisor::{Process, ProcessConfig, run_to_end};
use dovetail_jepsen::swarm::{NETWORK, ServiceConfig, Swarm};
use dovetail_jepsen::upstream::Pem;
use serde_json::Value;

use super::{BROKEN_PEM, Fault, Names, Seen, scheme, status};
use crate::curl::Curl;
use crate::lab::DEADLINE;

/// Looks at Docker after which a change is taken as followed, if it ever is.
const LOOKS: u64 = 4;

/// A running Traefik that looks at its Swarm every second.
pub(super) struct Traefik {
    process: Process,
    swarm: Swarm,
    /// The place: addresses and a folder. Nothing of Dovetail runs in it.
    cluster: Cluster,
}

impl Traefik {
    pub(super) async fn start(program: &Path) -> Self {
        let config = ClusterConfig { members: 1, proxies: 1, ..ClusterConfig::default() };
        let cluster = Cluster::prepare(config).await.expect("a place");
        let swarm = Swarm::start(&cluster).await.expect("a Swarm");
        let dynamic = cluster.place().path("dynamic");
        std::fs::create_dir(&dynamic).expect("a folder");
        let arguments = [
            format!("--providers.swarm.endpoint=tcp://{}", cluster.stand_in_addr()),
            "--providers.swarm.refreshSeconds=1".to_owned(),
            "--providers.swarm.allowEmptyServices=true".to_owned(),
            format!("--providers.swarm.network={NETWORK}"),
            "--providers.providersThrottleDuration=100ms".to_owned(),
            format!("--providers.file.directory={}", dynamic.display()),
            format!("--entryPoints.web.address={}", cluster.proxy_addr(1)),
            format!("--entryPoints.websecure.address={}", cluster.proxy_tls_addr(1)),
            "--log.format=json".to_owned(),
            "--global.checkNewVersion=false".to_owned(),
            "--global.sendAnonymousUsage=false".to_owned(),
        ];
        let process = Process::start(ProcessConfig {
            name: "traefik".to_owned(),
            executable: program.to_owned(),
            arguments: arguments.map(Into::into).into(),
            log: cluster.place().path("traefik.log"),
        });
        Self { process: process.expect("it starts"), swarm, cluster }
    }

    pub(super) async fn version(&self) -> String {
        let mut command = Command::new(&self.process.config().executable);
        command.arg("version");
        let said = run_to_end(command, DEADLINE).await.expect("it says its version").stdout;
        let version = said.lines().find_map(|line| line.strip_prefix("Version:"));
        format!("Traefik {}", version.unwrap_or_default().trim())
    }

    /// Waits until it has looked so often that it would have followed any change.
    async fn looked(&self) {
        let before = self.swarm.stand_in().requests("/services");
        eventually(DEADLINE, || async {
            let looks = self.swarm.stand_in().requests("/services") - before;
            if looks >= LOOKS { Ok(()) } else { Err(format!("{looks} looks")) }
        })
        .await;
    }

    /// Errors and warnings that it logged from `start` on, in bytes of the log.
    fn complaints(&self, start: usize) -> Vec<String> {
        let log = std::fs::read_to_string(&self.process.config().log).unwrap_or_default();
        let lines = log.get(start..).unwrap_or_default().lines();
        let said = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let bad =
            said.filter(|line| ["warn", "error"].contains(&line["level"].as_str().unwrap_or("")));
        bad.map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            [text("error"), text("message")].join(" ").trim().to_owned()
        })
        .collect()
    }

    fn log_bytes(&self) -> usize {
        let log = std::fs::metadata(&self.process.config().log);
        log.map_or(0, |log| usize::try_from(log.len()).unwrap_or(usize::MAX))
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.cluster.place().path(name);
        std::fs::write(&path, content).expect("it is written");
        path.to_string_lossy().into_owned()
    }

    /// Names a host's certificate, which no label can.
    fn certificate(&self, name: &str, pem: &Pem) {
        let cert = self.file(&format!("{name}.cert"), &pem.cert);
        let key = self.file(&format!("{name}.key"), &pem.key);
        let certificates =
            format!("tls:\n  certificates:\n  - certFile: {cert}\n    keyFile: {key}\n");
        self.file(&format!("dynamic/{name}.yml"), &certificates);
    }

    async fn publish(&self, name: &str, host: &str, replicas: u8, more: &[(&str, &str)]) {
        let mut labels: BTreeMap<String, String> = [
            (format!("traefik.http.routers.{name}.rule"), format!("Host(`{host}`)")),
            (format!("traefik.http.routers.{name}.entrypoints"), "web".to_owned()),
            (format!("traefik.http.routers.{name}-tls.rule"), format!("Host(`{host}`)")),
            (format!("traefik.http.routers.{name}-tls.entrypoints"), "websecure".to_owned()),
            (format!("traefik.http.routers.{name}-tls.tls"), "true".to_owned()),
            (port_label(name), "8080".to_owned()),
        ]
        .into();
        labels.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let config = ServiceConfig { labels, ..ServiceConfig::labelled(name, replicas, &[]) };
        self.swarm.create(config).await.expect("it is created");
    }

    fn label(&self, name: &str, label: &str, value: &str) {
        self.swarm.stand_in().set_label(name, label, value).expect("the service is there");
    }

    /// Lets `fault` happen to a service, and says what became of it.
    pub(super) async fn suffer(
        &mut self,
        fault: Fault,
        names: &Names,
        pem: &Pem,
        ca: &str,
    ) -> Seen {
        let Names { victim, bystander, rival } = names;
        let (host, beside) = (format!("{victim}.example"), format!("{bystander}.example"));
        self.certificate(victim, pem);
        self.publish(victim, &host, 2, &[]).await;
        self.publish(bystander, &beside, 1, &[]).await;
        let (http, tls) = (self.cluster.proxy_addr(1), self.cluster.proxy_tls_addr(1));
        let curl = Curl::new(http, tls).with(&["--cacert", ca]);
        let url = format!("{}://{host}/", scheme(fault));
        for url in [&url, &format!("http://{beside}/")] {
            eventually(DEADLINE, || async {
                let now = status(&curl, url).await;
                if now == "200" { Ok(()) } else { Err(format!("{url}: {now}")) }
            })
            .await;
        }
        let before = self.log_bytes();
        self.change(fault, names, &host).await;
        self.looked().await;
        let mut complaints = self.complaints(before);
        complaints.dedup();
        let named = match complaints.first() {
            Some(first) => format!("log: {}", first.chars().take(120).collect::<String>()),
            None => "nothing".to_owned(),
        };
        let seen = Seen {
            victim: self.victim_status(&curl, &url, fault, rival).await,
            bystander: status(&curl, &format!("http://{beside}/")).await,
            named,
        };
        for name in [victim, bystander, rival] {
            // The rival is there in one case only.
            _ = self.swarm.discard(name);
        }
        seen
    }

    /// With two services on a host, also which of them answer.
    async fn victim_status(&self, curl: &Curl, url: &str, fault: Fault, rival: &str) -> String {
        if fault != Fault::SameHost {
            return status(curl, url).await;
        }
        let answers = curl.all(&format!("{url}?[1-20]")).await;
        let by_rival = answers
            .iter()
            .filter(|answer| answer.header("x-answered-by").starts_with(&format!("{rival}.")));
        format!("{}, {} of 20 by the newcomer", answers[0].status, by_rival.count())
    }

    async fn change(&mut self, fault: Fault, names: &Names, host: &str) {
        let name = &names.victim;
        match fault {
            Fault::Typo => {
                let typo = format!("traefik.http.routers.{name}.entrypionts");
                self.label(name, &typo, "web");
            }
            Fault::InvalidPort => self.label(name, &port_label(name), "99999"),
            Fault::NoPort => {
                let remove = |spec: &mut dovetail_stand_in::ServiceSpec| {
                    spec.labels.remove(&port_label(name));
                };
                self.swarm.stand_in().update_service(name, remove).expect("it is there");
            }
            Fault::SameHost => {
                let sticky = format!(
                    "traefik.http.services.{}.loadbalancer.sticky.cookie.name",
                    names.rival
                );
                self.publish(&names.rival, host, 1, &[(&sticky, "session")]).await;
            }
            Fault::NoReplicas => self.swarm.scale(name, 0).await.expect("it is scaled"),
            Fault::UnusableHost => {
                let rule = format!("traefik.http.routers.{name}.rule");
                self.label(name, &rule, "Host(`not a host!`)");
            }
            Fault::BrokenCertificate => {
                let key =
                    std::fs::read_to_string(self.cluster.place().path(&format!("{name}.key")));
                let (cert, key) = (BROKEN_PEM.to_owned(), key.expect("the key"));
                self.certificate(name, &Pem { cert, key });
            }
        }
    }
}

fn port_label(name: &str) -> String {
    format!("traefik.http.services.{name}.loadbalancer.server.port")
}
