//! What is said of a TLS folder that cannot be used.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dovetail_process::chain;
use dovetail_process::tls::TlsDir;

use crate::support::{Validity, authority, craft, loopback, tls, uri};

/// The error of loading, without the folder's path.
fn refusal(folder: &Path) -> String {
    let error = TlsDir::load(folder).expect_err("refused");
    chain(&error).replace(&format!("{}/", folder.display()), "")
}

#[test]
fn a_good_folder_says_who_it_is_and_until_when() {
    let dir = authority();
    let member = tls(&dir, "member-3");
    assert_eq!(member.identity().to_string(), "dovetail://member/3");
    let days =
        member.expiry().duration_since(SystemTime::now()).expect("future").as_secs() / 86_400;
    assert!((364..=365).contains(&days), "{days}");
}

#[test]
fn a_missing_or_empty_file_is_named() {
    let dir = authority();
    let folder = dir.path().join("proxy");
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        let kept = fs::read(folder.join(file)).expect("read");
        fs::remove_file(folder.join(file)).expect("removed");
        assert_eq!(
            refusal(&folder),
            format!("read {file}: No such file or directory (os error 2)")
        );
        fs::write(folder.join(file), "nothing").expect("written");
        let what = if file == "key.pem" { "private key" } else { "certificate" };
        let text = refusal(&folder);
        assert!(text.starts_with(&format!("{file}: holds no PEM {what}: ")), "{text}");
        fs::write(folder.join(file), vec![b'x'; 2 << 20]).expect("written");
        assert_eq!(refusal(&folder), format!("{file}: longer than 1048576 bytes"));
        fs::write(folder.join(file), kept).expect("written");
    }
    TlsDir::load(&folder).expect("good again");
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    let dir = authority();
    let folder = dir.path().join("proxy");
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(folder.join("cert.pem"), pem).expect("written");
    let text = refusal(&folder);
    assert!(text.starts_with("cert.pem: not X.509"), "{text}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let dir = authority();
    let folder = dir.path().join("proxy");
    fs::copy(dir.path().join("operator/key.pem"), folder.join("key.pem")).expect("copied");
    assert_eq!(refusal(&folder), "key.pem: the key does not match the certificate in cert.pem");
}

#[test]
fn a_certificate_out_of_its_time_is_refused() {
    let dir = authority();
    let old = craft(dir.path(), "old", &[uri("dovetail://proxy")], Validity::Past);
    assert!(
        refusal(&old).starts_with("cert.pem: the certificate expired at 2"),
        "{}",
        refusal(&old)
    );
    let new = craft(dir.path(), "new", &[uri("dovetail://proxy")], Validity::Future);
    let text = refusal(&new);
    assert!(text.starts_with("cert.pem: the certificate is not valid before 2"), "{text}");
}

#[test]
fn a_certificate_says_who_holds_it_exactly_once() {
    let dir = authority();
    let nobody = craft(dir.path(), "nobody", &[loopback()], Validity::Now);
    assert_eq!(
        refusal(&nobody),
        "cert.pem: no dovetail:// URI among its subject alternative names"
    );
    let king = craft(dir.path(), "king", &[uri("dovetail://king/1")], Validity::Now);
    assert!(refusal(&king).contains("is not member, proxy, extension or operator"));
    let two = [uri("dovetail://proxy"), uri("dovetail://member/1")];
    let both = craft(dir.path(), "both", &two, Validity::Now);
    assert_eq!(refusal(&both), "cert.pem: more than one dovetail:// URI among its names");
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (dir, theirs) = (authority(), authority());
    let folder = dir.path().join("proxy");
    fs::copy(theirs.path().join("ca/ca.pem"), folder.join("ca.pem")).expect("copied");
    assert_eq!(refusal(&folder), "cert.pem: the certificate is not signed by ca.pem");
}

#[tokio::test]
async fn the_expiry_is_a_metric() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let dir = authority();
    let expiry = metrics::with_local_recorder(&recorder, || tls(&dir, "proxy").expiry());
    let seconds = expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let page = handle.render();
    assert!(page.contains(&format!("dovetail_tls_certificate_expiry_seconds {seconds}")), "{page}");
}
