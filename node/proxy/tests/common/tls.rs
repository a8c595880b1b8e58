//! Certificates made on the spot, and clients that speak TLS: in process, curl and openssl.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use dovetail_routing::snapshot::{Certificate, Route, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::DEADLINE;

/// Who signs certificates.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Leaf {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_with(names, |_| {})
    }

    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone()).expect("names");
        let common_name = names.first().map_or("client", String::as_str);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Leaf { cert, key: key.serialize_pem() }
    }

    /// A client that trusts this authority; `proof` is its own certificate.
    pub fn client(&self, alpn: &[&str], proof: Option<&Leaf>) -> Arc<ClientConfig> {
        self.client_of(alpn, proof, rustls::ALL_VERSIONS)
    }

    pub fn client_of(
        &self,
        alpn: &[&str],
        proof: Option<&Leaf>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(self.pem.as_bytes()) {
            roots.add(cert.expect("PEM")).expect("an authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match proof {
            Some(leaf) => {
                let chain = CertificateDer::pem_slice_iter(leaf.cert.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A folder of secrets. Files are replaced whole, as operators' tools do it.
pub struct SecretsDir(TempDir);

impl SecretsDir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub fn secrets(&self) -> dovetail_proxy::secrets::Secrets {
        dovetail_proxy::secrets::Secrets::new(Some(self.path()))
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let new = self.0.path().join(format!(".{name}.new"));
        std::fs::write(&new, content).expect("written");
        std::fs::rename(&new, &path).expect("renamed");
        path
    }

    /// Writes `NAME.cert` and `NAME.key`.
    pub fn put(&self, name: &str, leaf: &Leaf) {
        self.write(&format!("{name}.key"), &leaf.key);
        self.write(&format!("{name}.cert"), &leaf.cert);
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).expect("removed");
    }
}

/// The route with TLS terminated by the secrets `NAME.cert` and `NAME.key`.
pub fn terminated(route: Route, name: &str) -> Route {
    terminated_with(route, name, None)
}

/// The same; clients must have a certificate that `client_ca` signed.
pub fn terminated_with(mut route: Route, name: &str, client_ca: Option<&str>) -> Route {
    let secret = |name: &str| name.parse().expect("a name");
    route.tls = Tls::Terminate(Certificate {
        cert: secret(&format!("{name}.cert")),
        key: Some(secret(&format!("{name}.key"))),
        client_ca: client_ca.map(secret),
    });
    route
}

/// The route with its TLS left to the application.
pub fn passed_through(mut route: Route) -> Route {
    route.tls = Tls::Passthrough;
    route
}

/// A TLS connection, or why there is none.
pub async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name, tcp);
    tokio::time::timeout(DEADLINE, connecting).await.expect("a handshake in time")
}

/// Sends a request and reads to the end of the connection.
pub async fn exchange(stream: &mut TlsStream<TcpStream>, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    read.expect("an end in time")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// One request on a connection of its own.
pub async fn get_tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
    target: &str,
) -> std::io::Result<String> {
    let mut stream = connect(address, config, name).await?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    exchange(&mut stream, &request).await
}

/// A connection that stays open for the next request.
pub async fn get_on(stream: &mut TlsStream<TcpStream>, host: &str, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let mut chunk = [0; 8 * 1_024];
    loop {
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut chunk)).await;
        let count = read.expect("an answer in time").expect("read");
        assert!(count > 0, "the connection ended after {answer:?}");
        answer += &String::from_utf8_lossy(&chunk[..count]);
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a length").parse().expect("a number");
        if body.len() >= length {
            return answer;
        }
    }
}

/// What a command printed, and whether it succeeded.
pub async fn run(command: &str, words: &[&str]) -> (bool, String) {
    let child = tokio::process::Command::new(command)
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, child).await.expect("it ends in time");
    let output = output.unwrap_or_else(|error| panic!("{command}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// curl, which finds every name at `address`.
pub async fn curl(address: SocketAddr, ca: &Path, url: &str, more: &[&str]) -> (bool, String) {
    let to = format!("::{address}");
    let ca = ca.display().to_string();
    let mut words = vec!["-sS", "--max-time", "10", "--connect-to", &to, "--cacert", &ca];
    words.extend(more);
    words.push(url);
    run("curl", &words).await
}

/// openssl's client: connects, and ends as its standard input does.
pub async fn s_client(address: SocketAddr, more: &[&str]) -> (bool, String) {
    let address = address.to_string();
    let mut words = vec!["s_client", "-connect", &address];
    words.extend(more);
    run("openssl", &words).await
}
