//! Exit codes, and the one line that goes with each.

use std::time::{Duration, Instant};

use crate::fake::{Cli, Mode, Ran, bare, certificates, dead, member, mute, ran};

#[track_caller]
fn assert_ends(ran: &Ran, code: i32, words: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(ran.stderr.contains(words), "{words:?} is not in {:?}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "one line: {:?}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[tokio::test]
async fn two_is_a_wrong_command_line() {
    let certificates = certificates();
    let ran_bare = async |arguments: &[&str]| ran(bare().args(arguments)).await;
    assert_ends(&ran_bare(&["status"]).await, 2, "--core");
    assert_ends(&ran_bare(&["--core", "a:1", "status"]).await, 2, "--tls-dir");
    assert_eq!(ran_bare(&["fly"]).await.code, 2);
    assert_eq!(ran_bare(&[]).await.code, 2);
    assert_eq!(ran_bare(&["-o", "xml", "status"]).await.code, 2);

    let mut cli = Cli::new("localhost", &certificates);
    assert_ends(&cli.run(&["status"]).await, 2, "address \"localhost\": not HOST:PORT");
    cli.core = "a:1,,b:1".to_owned();
    assert_eq!(cli.run(&["status"]).await.code, 2);
    cli.tls_dir = certificates.path().join("nobody");
    assert_ends(&cli.run(&["status"]).await, 2, "nobody/ca.pem: No such file or directory");
}

#[tokio::test]
async fn help_has_examples() {
    for arguments in [&["--help"][..], &["status", "--help"], &["pki", "issue", "--help"]] {
        let ran = ran(bare().args(arguments)).await;
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("Example"), "{}", ran.stdout);
    }
}

#[tokio::test]
async fn three_is_a_refusal_with_its_reason() {
    let certificates = certificates();
    let (address, _) = member(&certificates, 1, Mode::Leader).await;
    let mut cli = Cli::new(&address, &certificates);
    let ran = cli.run(&["routes", "--service-cluster", "nowhere"]).await;
    assert_ends(&ran, 3, "service cluster \"nowhere\" is not known");
    cli.tls_dir = certificates.path().join("operator-anna");
    assert_eq!(cli.run(&["routes"]).await.code, 0, "a viewer may look");
    let ran = cli.run(&["annotate", "x"]).await;
    assert_ends(&ran, 3, "needs role operator, and has viewer");
    cli.tls_dir = certificates.path().join("proxy");
    assert_ends(&cli.run(&["status"]).await, 3, "dovetail://proxy may not do this");
}

#[tokio::test]
async fn four_is_nobody_there() {
    let certificates = certificates();
    let (first, second) = (dead().await, dead().await);
    let cli = Cli::new(&format!("{first},{second}"), &certificates);
    for verb in [&["status"][..], &["annotate", "x"]] {
        let ran = cli.run(verb).await;
        assert_ends(&ran, 4, &format!("connect to {first}: Connection refused"));
        assert!(ran.stderr.contains(&format!("connect to {second}: ")), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn four_says_who_was_silent_and_who_was_not() {
    let certificates = certificates();
    let first = dead().await;
    let (silent, _) = member(&certificates, 1, Mode::Silent).await;
    let cli = Cli::new(&format!("{first},{silent}"), &certificates);
    let ran = cli.run(&["--timeout", "1s", "routes"]).await;
    assert_ends(&ran, 4, &format!("connect to {first}: Connection refused"));
    assert!(ran.stderr.contains(&format!("no answer from {silent} within 1s")), "{}", ran.stderr);
}

#[tokio::test]
async fn four_is_also_no_quorum_and_another_authority() {
    let (ours, theirs) = (certificates(), certificates());
    let (address, fake) = member(&ours, 1, Mode::NoQuorum).await;
    let cli = Cli::new(&address, &ours);
    for verb in [&["--timeout", "1s", "routes"][..], &["--timeout", "1s", "annotate", "x"]] {
        assert_ends(&cli.run(verb).await, 4, &format!("{address}: no leader is known"));
    }
    assert!(fake.orders.lock().expect("orders").is_empty());
    let old = cli.run(&["routes", "--stale"]).await;
    assert_eq!(old.code, 0, "stale answers need no quorum");
    let age = "as of index 57; that member heard the leader 1234 ms ago";
    assert!(old.stdout.starts_with(age), "{}", old.stdout);
    // A list has no place for it beside what scripts rely on.
    for verb in [&["problems"][..], &["canary", "list"]] {
        let old = cli.run(&[&["-o", "json"], verb, &["--stale"]].concat()).await;
        assert!(old.stdout.starts_with('[') && old.stderr.contains(age), "{old:?}");
    }

    let cli = Cli::new(&address, &theirs);
    assert_ends(&cli.run(&["status"]).await, 4, "its certificate is not signed by ca.pem");
}

#[tokio::test]
async fn five_is_a_change_without_an_answer() {
    let certificates = certificates();
    let (address, fake) = member(&certificates, 1, Mode::Silent).await;
    let cli = Cli::new(&address, &certificates);
    let ran = cli.run(&["--timeout", "2s", "annotate", "--request-id", "a7", "x"]).await;
    assert_ends(&ran, 5, "outcome unknown: ");
    assert!(ran.stderr.contains("--request-id a7"), "{}", ran.stderr);
    assert_eq!(fake.orders.lock().expect("orders").len(), 1, "it did arrive");
}

#[tokio::test]
async fn a_dead_or_mute_first_address_costs_less_than_a_second() {
    let certificates = certificates();
    let (leader, _) = member(&certificates, 1, Mode::Leader).await;
    let (follower, _) = member(&certificates, 2, Mode::Follower(leader)).await;
    for first in [dead().await, mute().await] {
        let cli = Cli::new(&format!("{first},{},{follower}", mute().await), &certificates);
        for verb in ["status", "routes"] {
            let started = Instant::now();
            let ran = cli.run(&["-o", "json", verb]).await;
            assert_eq!(ran.code, 0, "{ran:?}");
            // 0.6 s by design; the rest is the machine's.
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        }
    }
}

#[tokio::test]
async fn the_demo_says_how_it_ends() {
    let ran = ran(bare().args(["demo", "--help"])).await;
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("--once"));
}
