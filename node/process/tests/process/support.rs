//! Certificates as no `pki` would make them, a server that says who called, and a client.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dovetail_process::grpc::{self, PeerInfo, TlsIo};
use dovetail_process::pki;
use dovetail_process::tls::TlsDir;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};

/// A folder with an authority, three members and the rest.
pub(crate) fn authority() -> TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    pki::init(dir.path(), 3, &[]).expect("pki init");
    dir
}

pub(crate) fn tls(dir: &TempDir, who: &str) -> TlsDir {
    TlsDir::load(&dir.path().join(who)).expect("TLS folder")
}

/// Whether a certificate is valid, and in which way not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    Now,
    Past,
    Future,
}

/// Writes DIR/NAME with a certificate for these names, signed by DIR's authority.
pub(crate) fn craft(dir: &Path, name: &str, sans: &[SanType], validity: Validity) -> PathBuf {
    let ca = |file: &str| fs::read_to_string(dir.join("ca").join(file)).expect("authority");
    let ca_key = KeyPair::from_pem(&ca("key.pem")).expect("key");
    let issuer = Issuer::from_ca_cert_pem(&ca("ca.pem"), ca_key).expect("issuer");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = sans.to_vec();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let now = time::OffsetDateTime::now_utc();
    let (from, to) = match validity {
        Validity::Now => (-1, 1),
        Validity::Past => (-2, -1),
        Validity::Future => (1, 2),
    };
    params.not_before = now + time::Duration::days(from);
    params.not_after = now + time::Duration::days(to);
    let cert = params.signed_by(&key, &issuer).expect("signed");
    let folder = dir.join(name);
    fs::create_dir_all(&folder).expect("folder");
    fs::write(folder.join("ca.pem"), ca("ca.pem")).expect("written");
    fs::write(folder.join("cert.pem"), cert.pem()).expect("written");
    fs::write(folder.join("key.pem"), key.serialize_pem()).expect("written");
    folder
}

pub(crate) fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("ASCII"))
}

pub(crate) fn loopback() -> SanType {
    SanType::IpAddress([127, 0, 0, 1].into())
}

/// Serves on a free port until the test ends; answers each call with who called.
pub(crate) async fn serve(tls: TlsDir) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    let service = tower::service_fn(|request: http::Request<Body>| async move {
        let peer = request.extensions().get::<PeerInfo>().map(|peer| peer.identity.to_string());
        http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .header("caller", peer.unwrap_or_default())
            .body(Body::empty())
    });
    let incoming = grpc::incoming(listener, tls);
    tokio::spawn(Server::builder().serve_with_incoming::<_, _, TlsIo, _, _>(service, incoming));
    address
}

/// Calls, and yields who the server thinks that we are.
pub(crate) async fn call(channel: Channel) -> Result<String, Status> {
    let request = http::Request::post("http://member/dovetail.Test/Call")
        .header("content-type", "application/grpc")
        .body(Body::empty())
        .expect("request");
    let calling = tower::ServiceExt::oneshot(channel, request);
    let response = tokio::time::timeout(Duration::from_secs(10), calling)
        .await
        .map_err(|_| Status::new(Code::DeadlineExceeded, "no answer in the test"))?
        .map_err(|error| Status::from_error(Box::new(error)))?;
    let caller = response.headers().get("caller").and_then(|value| value.to_str().ok());
    Ok(caller.unwrap_or_default().to_owned())
}

/// Calls `address` as `tls`, and yields the answer or the reason in words.
pub(crate) async fn ask(tls: &TlsDir, address: &str) -> Result<String, String> {
    let channel = grpc::channel(tls, address).map_err(|error| error.to_string())?;
    call(channel).await.map_err(|status| grpc::describe(&status))
}

/// Waits for a level, and panics with the last reason why it was not reached.
pub(crate) async fn eventually<T, E: std::fmt::Display>(
    within: Duration,
    mut level: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match level().await {
            Ok(reached) => return reached,
            Err(reason) if Instant::now() > deadline => panic!("not within {within:?}: {reason}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
