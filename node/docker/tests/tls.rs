//! TCP with TLS, both sides showing certificates, as Docker's own port 2376.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dovetail_docker::{Docker, DockerConfig, DockerError, DockerTls, WatchConfig};
use dovetail_stand_in::{Options, ServiceSpec, StandIn};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

struct Material {
    folder: tempfile::TempDir,
    acceptor: TlsAcceptor,
}

impl Material {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tls(&self) -> DockerTls {
        let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|f| Some(self.file(f)));
        DockerTls { ca, cert, key, allow_insecure: false }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

/// An authority, a server that asks for certificates of it, and files for a client.
fn material() -> Material {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(ca, ca_key);
    let leaf = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        (params.signed_by(&key, &issuer).expect("a certificate"), key)
    };
    let (client, client_key) = leaf("client");
    write(&folder.path().join("ca.pem"), &ca_cert.pem());
    write(&folder.path().join("cert.pem"), &client.pem());
    write(&folder.path().join("key.pem"), &client_key.serialize_pem());
    let (server, server_key) = leaf("127.0.0.1");
    let mut roots = RootCertStore::empty();
    roots.add(ca_cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(
            vec![server.der().clone()],
            PrivateKeyDer::try_from(server_key.serialize_der()).expect("a key"),
        )
        .expect("a server");
    Material { folder, acceptor: TlsAcceptor::from(Arc::new(config)) }
}

/// Ends TLS in front of `engine`; returns its address.
async fn terminate(acceptor: TlsAcceptor, engine: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let Ok(mut inside) = TcpStream::connect(engine).await else { return };
                _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    address
}

async fn connect(port: u16, tls: Option<DockerTls>) -> Result<Docker, DockerError> {
    let url = format!("tcp://127.0.0.1:{port}").parse().expect("a URL");
    Docker::connect(DockerConfig { url, tls, timeout: Duration::from_secs(5) }).await
}

fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", chain(cause)));
    format!("{error}{}", cause.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_behind_tls_is_watched() {
    let material = material();
    let stand_in = StandIn::start(Options::default()).await.expect("started");
    let engine = stand_in.address().await.expect("an address");
    let port = terminate(material.acceptor.clone(), engine).await.port();
    let docker = connect(port, Some(material.tls())).await.expect("a client");
    let (watcher, handle) = WatchConfig::usual(None).build(docker);
    let job = tokio::spawn(watcher.run(std::future::pending()));
    let mut seen = handle.seen();
    let soon = Duration::from_secs(15);
    _ = tokio::time::timeout(soon, seen.wait_for(Option::is_some)).await.expect("in time");
    stand_in.create_service(ServiceSpec::new("web")).expect("created");
    let there = |seen: &Option<dovetail_docker::Seen>| {
        seen.as_ref().is_some_and(|seen| seen.listing.services.len() == 1)
    };
    _ = tokio::time::timeout(soon, seen.wait_for(there)).await.expect("in time");
    job.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_another_authority_are_refused_on_both_sides() {
    let (ours, theirs) = (material(), material());
    let stand_in = StandIn::start(Options::default()).await.expect("started");
    let engine = stand_in.address().await.expect("an address");
    let port = terminate(ours.acceptor.clone(), engine).await.port();
    let strange_engine = DockerTls { ca: theirs.tls().ca, ..ours.tls() };
    let docker = connect(port, Some(strange_engine)).await.expect("a client");
    let error = chain(&docker.list_all().await.expect_err("refused"));
    assert!(error.contains("certificate"), "{error}");
    let strange_client = DockerTls { ca: ours.tls().ca, ..theirs.tls() };
    let docker = connect(port, Some(strange_client)).await.expect("a client");
    assert!(docker.list_all().await.is_err());
    // Unless it is not to be checked.
    let unchecked = DockerTls { ca: None, allow_insecure: true, ..ours.tls() };
    let docker = connect(port, Some(unchecked)).await.expect("a client");
    docker.list_all().await.expect("listed");
    // Plain HTTP to a TLS port is an error, not a hang.
    let docker = connect(port, None).await.expect("a client");
    assert!(docker.list_all().await.is_err());
}

#[tokio::test]
async fn a_wrong_file_is_named_at_the_start() {
    let material = material();
    let missing = DockerTls { ca: Some(material.file("none.pem")), ..material.tls() };
    let error = chain(&connect(1, Some(missing)).await.expect_err("refused"));
    assert!(error.contains("TLSCACert") && error.contains("none.pem"), "{error}");
    let swapped = DockerTls { key: material.tls().cert, ..material.tls() };
    let error = chain(&connect(1, Some(swapped)).await.expect_err("refused"));
    assert!(error.contains("TLSKey") && error.contains("cert.pem"), "{error}");
    let alone = DockerTls { key: None, ..material.tls() };
    let error = chain(&connect(1, Some(alone)).await.expect_err("refused"));
    assert!(error.contains("TLSCert needs TLSKey"), "{error}");
    let unnamed = DockerTls { ca: None, ..material.tls() };
    let error = chain(&connect(1, Some(unnamed)).await.expect_err("refused"));
    assert!(error.contains("TLSCACert is needed"), "{error}");
}
