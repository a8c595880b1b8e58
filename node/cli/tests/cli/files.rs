//! `pki`: certificates without a core.

use crate::fake::{bare, ran};

#[tokio::test]
async fn pki_init_and_issue_say_what_they_made_and_overwrite_nothing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let certs = dir.path().join("certs");
    let certs = certs.to_str().expect("UTF-8");
    let init =
        ran(bare().args(["pki", "init", certs, "--members", "1", "--san", "a.example"])).await;
    assert_eq!((init.code, init.stderr.as_str()), (0, ""));
    let made = ["ca", "member-1", "proxy", "extension", "operator"];
    assert_eq!(init.stdout, made.map(|name| format!("{certs}/{name}\n")).concat());

    let again = ran(bare().args(["pki", "init", certs])).await;
    assert_eq!(again.code, 3);
    assert!(again.stderr.contains("already exists, and is never overwritten"), "{}", again.stderr);

    let issue = ran(bare().args(["-o", "json", "pki", "issue", certs, "operator/anna"])).await;
    assert_eq!(issue.stdout, format!("{{\"folders\":[\"{certs}/operator-anna\"]}}\n"));

    for wrong in [
        &["pki", "issue", certs, "anna"][..],
        &["pki", "issue", certs, "operator/b", "--role", "king"],
        &["pki", "issue", certs, "operator/b", "--san", "no name"],
        &["pki", "init", "/nowhere", "--members", "0"],
    ] {
        assert_eq!(ran(bare().args(wrong)).await.code, 2, "{wrong:?}");
    }
    let none = ran(bare().args(["pki", "issue", "/nowhere", "operator/b"])).await;
    assert_eq!(none.code, 3);
    assert!(none.stderr.contains("read /nowhere/ca/ca.pem"), "{}", none.stderr);
}

#[tokio::test]
async fn shells_get_a_script_for_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let done = ran(bare().args(["completion", shell])).await;
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{shell}");
        for word in ["canary", "member", "config", "request-id"] {
            assert!(done.stdout.contains(word), "{shell}: no {word}");
        }
    }
    let done = ran(bare().args(["completion", "cmd"])).await;
    assert_eq!(done.code, 2, "{done:?}");
}
