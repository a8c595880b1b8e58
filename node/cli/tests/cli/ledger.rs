//! `log export`, `log verify`, `log follow` and `replay`, and what they make of bad files.

use std::fs;
use std::path::Path;

use crate::fake::{Cli, Mode, Ran, bare, certificates, dead, member, ran};

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error} in {ran:?}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test]
async fn an_export_is_checked_and_replayed_without_a_core() {
    let certificates = certificates();
    let (core, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&core, &certificates);
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("shop.log");
    let file = text(&path);

    let exported = cli.run(&["-o", "json", "log", "export", file]).await;
    assert_eq!(exported.code, 0, "{exported:?}");
    assert_eq!(json(&exported)["exporter"], "dovetail://member/1");
    assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 1, "nothing beside it");
    let again = cli.run(&["log", "export", file]).await;
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("never overwritten"), "{}", again.stderr);

    // Nobody is asked: there is no core and no certificate.
    let verified = ran(bare().args(["-o", "json", "log", "verify", file])).await;
    assert_eq!(verified.code, 0, "{verified:?}");
    let origin = json(&verified)["origin"].as_str().expect("a text").to_owned();
    assert!(origin.starts_with("consistent, origin not proven"), "{origin}");
    let replayed = ran(bare().args(["-o", "json", "replay", file])).await;
    assert_eq!(replayed.code, 0, "{replayed:?}");
    let replayed = json(&replayed);
    assert_eq!((replayed["index"].as_u64(), replayed["checkpoints"].as_u64()), (Some(2), Some(1)));
    assert_eq!(replayed["divergence"], serde_json::Value::Null);
    assert_eq!(replayed["service_clusters"][0]["name"], "");
    let asked = ["--explain", "GET", "http://nowhere.example/"];
    let explained = ran(bare().args(["-o", "json", "replay", file]).args(asked)).await;
    assert_eq!(explained.code, 0, "{explained:?}");
    assert_eq!(json(&explained)["explain"]["rule"], "unknown host");
    let explained = ran(bare().args(["replay", file]).args(asked)).await;
    assert!(explained.stdout.contains("there is no default backend: 503"), "{explained:?}");
    let asked = ["--explain", "GET", "nowhere.example"];
    let refused = ran(bare().args(["replay", file]).args(asked)).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("must begin with http://"), "{refused:?}");
    let until = ran(bare().args(["-o", "json", "replay", file, "--until", "0"])).await;
    assert_eq!(json(&until)["index"], 0);

    // The authority alone proves who signed it.
    let ca = certificates.path().join("ca/ca.pem");
    let proven = ran(bare().args(["-o", "json", "log", "verify", "--ca", text(&ca), file])).await;
    assert_eq!((proven.code, &json(&proven)["signed_by"]), (0, &"dovetail://member/1".into()));
    let strangers = crate::fake::certificates();
    let foreign = strangers.path().join("ca/ca.pem");
    let refused = ran(bare().args(["log", "verify", "--ca", text(&foreign), file])).await;
    assert_eq!(refused.code, 1);
    assert!(refused.stdout.contains("not signed by"), "{}", refused.stdout);

    // A core that answers is compared with, and one that does not is no error.
    let compared = cli.run(&["log", "verify", file]).await;
    assert_eq!(compared.code, 0, "{compared:?}");
    assert!(compared.stdout.contains("as 1 of 2 members have it at 2"), "{}", compared.stdout);
    let mut nobody = Cli::new(&dead().await, &certificates);
    nobody.columns = None;
    let alone = nobody.run(&["log", "verify", file]).await;
    assert_eq!(alone.code, 0, "{alone:?}");
    assert!(alone.stdout.contains("origin not proven"), "{}", alone.stdout);
}

#[tokio::test]
async fn a_bad_file_is_exit_1_and_named_with_its_place() {
    let certificates = certificates();
    let (core, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&core, &certificates);
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("shop.log");
    let file = text(&path);
    assert_eq!(cli.run(&["log", "export", file]).await.code, 0);
    let whole = fs::read(&path).expect("the file");
    // One byte of the block of rows.
    let mut changed = whole.clone();
    let middle = whole.len() / 3;
    changed[middle] ^= 1;
    for bytes in [&changed[..], &whole[..whole.len() - 40], b"something else"] {
        fs::write(&path, bytes).expect("written");
        for verb in [&["log", "verify", file][..], &["replay", file]] {
            let refused = ran(bare().args(verb)).await;
            assert_eq!(refused.code, 1, "{verb:?}: {refused:?}");
            assert!(!refused.stdout.is_empty(), "{verb:?}");
        }
    }
    let none = ran(bare().args(["log", "verify", "/nowhere/shop.log"])).await;
    assert_eq!(none.code, 2, "{none:?}");
    fs::write(&path, &whole).expect("written");
    let rules = ran(bare().args(["replay", "--rules", "7", file])).await;
    assert_eq!(rules.code, 3);
    assert!(rules.stderr.contains("rule set 7 is not known to this build"), "{}", rules.stderr);
    let same = ran(bare().args(["replay", "--rules", "2", file])).await;
    assert_eq!(same.code, 0, "{same:?}");
    assert!(same.stdout.contains("under rule set 2 every route would be the same"), "{same:?}");
    let until = ran(bare().args(["replay", "--until", "yesterday", file])).await;
    assert_eq!(until.code, 2);
}

#[tokio::test]
async fn members_that_differ_are_exit_1() {
    let certificates = certificates();
    let (core, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&core, &certificates);
    let compared = cli.run(&["log", "verify"]).await;
    assert_eq!(compared.code, 1, "{compared:?}");
    assert!(compared.stdout.contains("broken at index 7: the row is missing"));
    let compared = cli.run(&["-o", "json", "log", "verify"]).await;
    let compared = json(&compared);
    assert_eq!((&compared["ok"], &compared["index"]), (&false.into(), &2.into()));
    assert_eq!(compared["members"][1]["broken_index"], 7);
    assert_eq!(compared["members"][2]["verdict"], "does not answer");
}

#[tokio::test]
async fn following_prints_a_line_for_each_entry_until_the_member_ends() {
    let certificates = certificates();
    let (core, _) = member(&certificates, 1, Mode::Leader).await;
    let followed = Cli::new(&core, &certificates).run(&["-o", "json", "log", "follow"]).await;
    assert_eq!(followed.code, 4, "it broke off: {followed:?}");
    let indexes: Vec<_> = followed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["index"].clone())
        .collect();
    assert_eq!(indexes, [8, 9]);
}
