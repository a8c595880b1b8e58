//! A backup is whole, or there is no file.

use crate::fake::{Cli, Mode, certificates, member};

#[tokio::test]
async fn a_backup_is_written_once_and_whole() {
    let certificates = certificates();
    let (leader, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    let file = certificates.path().join("today.backup");
    let path = file.to_str().expect("UTF-8");
    let ran = cli.run(&["-o", "json", "backup", path]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&said["index"], &said["cluster_id"]), (&57.into(), &"c1".into()));
    assert_eq!(std::fs::read(&file).expect("written"), b"everything");

    let again = cli.run(&["backup", path]).await;
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("today.backup") && again.stderr.contains("exists"), "{again:?}");
    assert_eq!(std::fs::read(&file).expect("as it was"), b"everything");
}

#[tokio::test]
async fn half_a_backup_is_none() {
    let certificates = certificates();
    let (leader, _) = member(&certificates, 1, Mode::Lossy).await;
    let cli = Cli::new(&leader, &certificates);
    let file = certificates.path().join("today.backup");
    let ran = cli.run(&["backup", file.to_str().expect("UTF-8")]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("4 of 10 bytes came"), "{ran:?}");
    assert!(!file.exists());
}
