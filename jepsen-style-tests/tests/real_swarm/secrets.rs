//! TLS of an application: its certificate is a Docker secret that the proxies have mounted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dovetail_jepsen::eventually;
use tempfile::TempDir;

use crate::lab::{Lab, output};
use crate::{NODES, WEB, told};

/// Proxies restart one after the other, five seconds apart, and each says goodbye first.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(60);
const CURL_DEADLINE: Duration = Duration::from_secs(10);
/// Who the proxy runs as in its container.
const PROXY_USER: &str = "65532";

/// Two certificates of one host, each its own authority.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["web-1", "web-2"] {
            let made = rcgen::generate_simple_self_signed(vec![WEB.to_owned()]).unwrap();
            std::fs::write(folder.path().join(format!("{name}.cert")), made.cert.pem()).unwrap();
            let key = made.signing_key.serialize_pem();
            std::fs::write(folder.path().join(format!("{name}.key")), key).unwrap();
        }
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The application answers over TLS through every proxy, and its certificate is renewed
/// without a restart by naming the other secret.
pub(crate) async fn a_service_gets_its_certificate_from_a_secret(lab: &Lab) {
    let certificates = Certificates::new();
    let begun = Instant::now();
    let mut mounts = Vec::new();
    for name in ["web-1.cert", "web-1.key", "web-2.cert", "web-2.key"] {
        let file = certificates.file(name);
        lab.docker(1, &["secret", "create", name, &file.to_string_lossy()]).await.unwrap();
        let mount = format!("source={name},target={name},uid={PROXY_USER},mode=0400");
        mounts.extend(["--secret-add".to_owned(), mount]);
    }
    let update = ["service", "update", "--no-resolve-image"];
    let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
    lab.docker(1, &[&update[..], &mounts, &["dovetail_proxy"]].concat()).await.unwrap();
    told("the proxies given two pairs of secrets", begun);
    for pair in ["web-1", "web-2"] {
        let begun = Instant::now();
        let cert = format!("com.docker.lb.ssl_cert={pair}.cert");
        let key = format!("com.docker.lb.ssl_key={pair}.key");
        // Nothing is rolled out for a label, so nothing is waited for.
        let labels = ["--detach", "--label-add", &cert, "--label-add", &key, "web"];
        lab.docker(1, &[&update[..], &labels].concat()).await.unwrap();
        let authority = certificates.file(&format!("{pair}.cert"));
        for node in 1..=NODES {
            eventually(FOLLOWED_WITHIN, || answers_over_tls(lab, node, &authority)).await;
        }
        told(&format!("{WEB} over TLS with the certificate {pair}"), begun);
    }
}

async fn answers_over_tls(lab: &Lab, node: usize, authority: &Path) -> Result<(), String> {
    let mut curl = tokio::process::Command::new("curl");
    let to = format!("{WEB}:443:{}:443", lab.address(node));
    curl.args(["--disable", "--silent", "--show-error", "--fail", "--noproxy", "*"]);
    curl.args(["--connect-to", &to, "--cacert"]).arg(authority);
    curl.arg(format!("https://{WEB}/"));
    let answer = output(curl, CURL_DEADLINE).await?;
    if answer.starts_with("web.") { Ok(()) } else { Err(format!("answered {answer:?}")) }
}
