//! Certificates made on the spot, and handshakes by openssl.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use dovetail_jepsen::supervisor::run_to_end;
use dovetail_jepsen::upstream::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

use crate::lab::Lab;

const DEADLINE: Duration = Duration::from_secs(20);

/// Who signs certificates.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("it is signed").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// For servers and clients alike.
    pub(crate) fn issue(&self, name: &str) -> Pem {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).expect("it is signed").pem();
        Pem { cert, key: key.serialize_pem() }
    }
}

impl Lab {
    /// Makes a secret of Docker, which all proxies have mounted.
    pub(crate) fn secret(&self, name: &str, content: &str) {
        std::fs::write(self.cluster.secrets_dir().join(name), content).expect("it is written");
        self.swarm.stand_in().add_secret(name);
    }

    /// Makes the secrets `NAME.cert` and `NAME.key`.
    pub(crate) fn certificate(&self, name: &str, pem: &Pem) {
        self.secret(&format!("{name}.cert"), &pem.cert);
        self.secret(&format!("{name}.key"), &pem.key);
    }

    /// A file for a client.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.cluster.place().path(name);
        std::fs::write(&path, content).expect("it is written");
        path.to_string_lossy().into_owned()
    }
}

/// What a handshake came to, as openssl sees it.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) completed: bool,
    /// Of the certificate that the server showed; empty when it showed none.
    pub(crate) subject: String,
    pub(crate) said: String,
}

/// Offers a TLS server `name`, or none, by `openssl s_client`.
pub(crate) async fn handshake(addr: SocketAddr, name: Option<&str>) -> Handshake {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &addr.to_string()]);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    let done = run_to_end(command, DEADLINE).await.expect("openssl runs");
    let said = format!("{}{}", done.stdout, done.stderr);
    let subject = said.lines().find_map(|line| line.strip_prefix("subject="));
    let subject = subject.unwrap_or_default().replace(' ', "");
    Handshake { completed: !said.contains("Cipher is (NONE)"), subject, said }
}
