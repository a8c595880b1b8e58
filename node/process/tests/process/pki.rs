//! The files that `pki` writes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dovetail_process::identity::Role;
use dovetail_process::pki;
use dovetail_process::tls::TlsDir;

use crate::support::authority;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn init_writes_a_folder_for_each_and_keeps_the_keys_secret() {
    let dir = authority();
    let names: Vec<_> = {
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names, ["ca", "extension", "member-1", "member-2", "member-3", "operator", "proxy"]);
    assert_eq!(mode(&dir.path().join("ca/key.pem")), 0o600);
    for (name, identity) in [
        ("member-2", "dovetail://member/2"),
        ("proxy", "dovetail://proxy"),
        ("extension", "dovetail://extension"),
        ("operator", "dovetail://operator/operator?role=admin"),
    ] {
        let folder = dir.path().join(name);
        assert_eq!(mode(&folder.join("key.pem")), 0o600);
        assert_eq!(mode(&folder.join("cert.pem")) & 0o444, 0o444);
        let loaded = TlsDir::load(&folder).expect("loaded");
        assert_eq!(loaded.identity().to_string(), identity);
    }
}

#[test]
fn nothing_is_ever_overwritten() {
    let dir = authority();
    let before = fs::read(dir.path().join("ca/key.pem")).expect("read");
    let error = pki::init(dir.path(), 3, &[]).expect_err("there already").to_string();
    assert!(error.ends_with("/ca already exists, and is never overwritten: nothing was written"));
    fs::remove_dir_all(dir.path().join("ca")).expect("removed");
    let error = pki::init(dir.path(), 3, &[]).expect_err("there already").to_string();
    assert!(error.contains("/member-1 already exists"), "{error}");
    assert!(!dir.path().join("ca").exists(), "nothing was written");
    assert_ne!(before, Vec::<u8>::new());
}

#[test]
fn names_are_checked_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for (members, san) in [(0, "a"), (100, "a"), (3, "no spaces"), (3, ""), (3, "ä.example")] {
        assert!(pki::init(dir.path(), members, &[san.to_owned()]).is_err(), "{members} {san}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 0);
}

#[test]
fn given_names_and_the_standing_ones_are_in_every_certificate() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let sans = ["router.example", "10.1.2.3", "*.core.example", "localhost"].map(str::to_owned);
    pki::init(dir.path(), 1, &sans).expect("pki init");
    let pem = fs::read(dir.path().join("member-1/cert.pem")).expect("read");
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
    let certificate = pem.parse_x509().expect("X.509");
    let names = certificate.subject_alternative_name().expect("names").expect("some");
    let names: Vec<_> = names.value.general_names.iter().map(ToString::to_string).collect();
    for name in [
        "URI(dovetail://member/1)",
        "DNSName(localhost)",
        "IPAddress(7f:00:00:01)",
        "IPAddress(00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:01)",
        "DNSName(core-1)",
        "DNSName(router.example)",
        "IPAddress(0a:01:02:03)",
        "DNSName(*.core.example)",
    ] {
        let same = names.iter().filter(|given| *given == name).count();
        assert_eq!(same, 1, "{name} in {names:?}");
    }
}

#[test]
fn issue_makes_one_more_from_the_same_authority() {
    let dir = authority();
    let issue = |name: &str, role| pki::issue(dir.path(), name, role, &[]);
    for (name, folder, identity) in [
        ("operator/anna", "operator-anna", "dovetail://operator/anna?role=viewer"),
        ("member/4", "member-4", "dovetail://member/4"),
        ("proxy/edge", "proxy-edge", "dovetail://proxy/edge"),
        ("proxy/b?service_cluster=blue", "proxy-b", "dovetail://proxy/b?service_cluster=blue"),
    ] {
        let path = issue(name, Role::Viewer).expect(name);
        assert_eq!(path, dir.path().join(folder));
        let loaded = TlsDir::load(&path).expect(name);
        assert_eq!(loaded.identity().to_string(), identity);
    }
    let again = issue("operator/anna", Role::Admin).expect_err("there already").to_string();
    assert!(again.contains("operator-anna already exists"), "{again}");
    for bad in ["anna", "king/anna", "operator/", "operator/a b", "member/0", "../x", "proxy/../x"]
    {
        let error = issue(bad, Role::Viewer).expect_err(bad).to_string();
        assert!(error.contains("is not ROLE/NAME"), "{error}");
    }
}

#[test]
fn issue_says_what_is_wrong_with_the_authority() {
    let (dir, theirs) = (authority(), authority());
    fs::copy(theirs.path().join("ca/key.pem"), dir.path().join("ca/key.pem")).expect("copied");
    let error = pki::issue(dir.path(), "operator/anna", Role::Viewer, &[]).expect_err("mismatch");
    assert!(error.to_string().contains("does not match the certificate in"), "{error}");
    fs::remove_file(dir.path().join("ca/key.pem")).expect("removed");
    let error = pki::issue(dir.path(), "operator/anna", Role::Viewer, &[]).expect_err("no key");
    assert!(error.to_string().ends_with("ca/key.pem"), "{error}");
}
