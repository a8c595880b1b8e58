//! Changes: the leader is found, and a lost answer is asked for again, not done twice.

use crate::fake::{Cli, Mode, certificates, dead, member};

#[tokio::test]
async fn a_change_follows_the_leaders_hint() {
    let certificates = certificates();
    let (leader, fake) = member(&certificates, 1, Mode::Leader).await;
    let (follower, other) = member(&certificates, 2, Mode::Follower(leader)).await;
    // The leader itself is not among the addresses.
    let core = format!("{},{follower}", dead().await);
    let cli = Cli::new(&core, &certificates);
    let ran = cli.run(&["-o", "json", "annotate", "--request-id", "deploy-42", "release"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(
        ran.stdout,
        "{\"index\":58,\"revision\":42,\"applied\":\"unchanged\",\"first_answer\":false}\n"
    );
    let expected = vec![("deploy-42".to_owned(), "release".to_owned())];
    assert_eq!(*fake.orders.lock().expect("orders"), expected);
    assert!(other.orders.lock().expect("orders").is_empty());

    let ran = cli.run(&["annotate", "--request-id", "deploy-42", "release"]).await;
    assert_eq!(ran.stdout, "unchanged at index 58, revision 42, as answered before\n");
}

#[tokio::test]
async fn each_change_has_a_request_id_of_its_own() {
    let certificates = certificates();
    let (leader, fake) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    for _ in 0..2 {
        assert_eq!(cli.run(&["annotate", "x"]).await.code, 0);
    }
    let orders = fake.orders.lock().expect("orders");
    assert_eq!(orders.len(), 2);
    assert_ne!(orders[0].0, orders[1].0);
    assert_eq!(orders[0].0.len(), 32, "128 bits");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_under_the_same_request_id() {
    let certificates = certificates();
    let (leader, fake) = member(&certificates, 1, Mode::Lossy).await;
    let ran = Cli::new(&leader, &certificates).run(&["-o", "json", "annotate", "x"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("\"first_answer\":true"), "{}", ran.stdout);
    let orders = fake.orders.lock().expect("orders");
    assert_eq!(orders.len(), 2);
    assert_eq!(orders[0], orders[1]);
}
