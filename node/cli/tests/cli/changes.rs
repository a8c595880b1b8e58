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

#[tokio::test]
async fn a_canary_is_ordered_and_shown() {
    let certificates = certificates();
    let (leader, fake) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    let shares = ["--service", "shop_v1=9000", "--service", "shop_v2=1000"];
    let set = [&["canary", "set", "--host", "shop.example", "--request-id", "r1"], &shares[..]];
    let ran = cli.run(&set.concat()).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "unchanged at index 58, revision 42\n"));
    let (id, ordered) = fake.orders.lock().expect("orders")[0].clone();
    assert_eq!(id, "r1");
    for said in ["shop.example", "\"shop_v1\", weight: 9000", "\"shop_v2\", weight: 1000"] {
        assert!(ordered.contains(said), "{ordered}");
    }
    for verb in ["clear", "promote"] {
        let ran = cli.run(&["canary", verb, "--host", "shop.example", "--path", "/app"]).await;
        assert_eq!(ran.code, 0, "{verb}: {ran:?}");
    }

    let ran = cli.run(&["-o", "json", "canary", "list"]).await;
    assert_eq!(
        ran.stdout,
        "[{\"service_cluster\":\"\",\"host\":\"shop.example\",\"path\":\"/\",\
         \"shares\":[{\"service\":\"shop_v1\",\"weight\":9000},\
         {\"service\":\"shop_v2\",\"weight\":1000}],\
         \"in_force\":[{\"service\":\"shop_v1\",\"weight\":10000},\
         {\"service\":\"shop_v2\",\"weight\":0}],\
         \"actor\":\"dovetail://operator/anna\",\"index\":58,\"run\":null}]\n"
    );
    let ran = cli.run(&["canary", "show", "--host", "shop.example"]).await;
    assert!(ran.stdout.contains("shop_v1 90%, shop_v2 10%"), "{}", ran.stdout);
    let ran = cli.run(&["canary", "show", "--host", "other.example"]).await;
    assert_eq!((ran.code, ran.stderr.contains("has no canary")), (3, true), "{ran:?}");
    let ran = cli.run(&["canary", "set", "--host", "a.example", "--service", "shop"]).await;
    assert_eq!((ran.code, ran.stderr.contains("NAME=SHARE")), (2, true), "{ran:?}");
}

#[tokio::test]
async fn a_dry_run_says_so() {
    let certificates = certificates();
    let (leader, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    let ran = cli.run(&["-o", "json", "annotate", "--dry-run", "x"]).await;
    assert_eq!(
        ran.stdout,
        "{\"index\":58,\"revision\":42,\"applied\":\"unchanged\",\"first_answer\":false,\
         \"dry_run\":true,\"routes\":[]}\n"
    );
    let ran = cli.run(&["annotate", "--dry-run", "x"]).await;
    assert!(ran.stdout.contains("nothing was written"), "{}", ran.stdout);
    // A lost answer to a dry run leaves nothing unknown.
    let (silent, _) = member(&certificates, 1, Mode::Silent).await;
    let cli = Cli::new(&silent, &certificates);
    let ran = cli.run(&["--timeout", "500ms", "annotate", "--dry-run", "x"]).await;
    assert_eq!((ran.code, ran.stderr.contains("nothing was written")), (4, true), "{ran:?}");
    let ran = cli.run(&["--timeout", "500ms", "annotate", "x"]).await;
    assert_eq!((ran.code, ran.stderr.contains("--request-id")), (5, true), "{ran:?}");
}

#[tokio::test]
async fn members_and_configuration_are_ordered_and_shown() {
    let certificates = certificates();
    let (leader, fake) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    for (verb, said) in [
        (&["add", "4=core-4:8080"][..], "change: Add, members: [4], address: \"core-4:8080\""),
        (&["promote", "4", "5"], "change: Promote, members: [4, 5]"),
        (&["remove", "4"], "change: Remove, members: [4]"),
        (&["replace", "2", "--address", "b:1"], "change: Replace, members: [2], address: \"b:1\""),
        (&["transfer-leader", "2"], "change: TransferLeader, members: [2]"),
    ] {
        let ran = cli.run(&[&["member"], verb].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let ordered = fake.orders.lock().expect("orders").pop().expect("an order").1;
        assert!(ordered.contains(said), "{ordered}");
    }
    let ran = cli.run(&["member", "list"]).await;
    assert!(ran.stdout.contains("core-1:8080"), "{}", ran.stdout);
    assert_eq!(cli.run(&["member", "add", "core-4:8080"]).await.code, 2);

    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("cluster.toml");
    std::fs::write(&file, "PollInterval = \"3s\"\nUnheard = 1\n").expect("written");
    let ran = cli.run(&["config", "apply", &file.to_string_lossy(), "--request-id", "c1"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "unchanged at index 58, revision 42\n"));
    assert!(ran.stderr.contains("line 2, column 1: Unheard"), "{}", ran.stderr);
    let ordered = fake.orders.lock().expect("orders").pop().expect("an order");
    assert_eq!(ordered, ("c1".to_owned(), "PollInterval = \"3s\"\nUnheard = 1\n".to_owned()));
    assert_eq!(cli.run(&["config", "apply", "/no/such/file"]).await.code, 2);

    let ran = cli.run(&["config", "show"]).await;
    assert_eq!(
        ran.stdout,
        "# in force since index 7, 2023-11-14 22:13:20.123 +00:00, by operator/root\n\
         PollInterval = \"7s\"\n"
    );
    let ran = cli.run(&["-o", "json", "config", "show", "--at", "3"]).await;
    assert!(ran.stdout.contains("\"actor\":\"dovetail://member/1\""), "{}", ran.stdout);
    let ran = cli.run(&["config", "show", "--at", "5"]).await;
    assert_eq!((ran.code, ran.stderr.contains("config history lists them")), (3, true), "{ran:?}");
    let ran = cli.run(&["-o", "json", "config", "history"]).await;
    assert!(ran.stdout.starts_with("[{\"index\":3,"), "{}", ran.stdout);
}

#[tokio::test]
async fn a_canary_is_started_and_ended() {
    let certificates = certificates();
    let (leader, fake) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    let start =
        ["canary", "start", "--host", "shop.example", "--from", "shop_v1", "--to", "shop_v2"];
    let plan = ["--steps", "500,10000", "--interval", "30s", "--max-error-rate", "0.5%"];
    let ran = cli.run(&[&start[..], &plan, &["--max-p99", "250ms"]].concat()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let (_, ordered) = fake.orders.lock().expect("orders")[0].clone();
    for said in [
        "steps: [500, 10000]",
        "interval_ms: 30000",
        "max_error_rate: Some(50)",
        "max_p99_ms: Some(250)",
        "min_requests: None",
    ] {
        assert!(ordered.contains(said), "{said}: {ordered}");
    }
    for verb in ["pause", "resume", "abort"] {
        let ran = cli.run(&["canary", verb, "--host", "shop.example", "--dry-run"]).await;
        assert_eq!(ran.code, 0, "{verb}: {ran:?}");
    }
    let ran = cli.run(&[&start[..], &["--steps", "5%", "--interval", "30s"]].concat()).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    let ran = cli.run(&[&start[..], &plan[..4], &["--max-error-rate", "1"]].concat()).await;
    assert!(ran.code == 2 && ran.stderr.contains("write it as 1% or 0.25%"), "{ran:?}");
}

#[tokio::test]
async fn upstreams_are_drained_and_shown() {
    let certificates = certificates();
    let (leader, fake) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    for (given, said) in [
        (&["drain", "10.0.1.3:8080", "--for", "10m"][..], "Address(\"10.0.1.3:8080\")"),
        (&["drain", "--service", "shop", "--force"], "Service(\"shop\")"),
        (&["undrain", "--swarm-node", "worker-2"], "SwarmNode(\"worker-2\")"),
    ] {
        let ran = cli.run(given).await;
        assert_eq!(ran.code, 0, "{given:?}: {ran:?}");
        let (_, ordered) = fake.orders.lock().expect("orders").last().cloned().expect("an order");
        assert!(ordered.contains(said), "{ordered}");
    }
    assert!(fake.orders.lock().expect("orders")[0].1.contains("for_ms: Some(600000)"));
    for bad in [&["drain"][..], &["drain", "nowhere"], &["drain", "10.0.1.3:80", "--service", "a"]]
    {
        assert_eq!(cli.run(bad).await.code, 2, "{bad:?}");
    }
    let ran = cli.run(&["-o", "json", "drains"]).await;
    assert_eq!(
        ran.stdout,
        "[{\"kind\":\"swarm_node\",\"target\":\"worker-2\",\"id\":\"n2\",\
         \"actor\":\"dovetail://operator/anna\",\"index\":59,\"until_ms\":1795000000000,\
         \"upstreams\":[\"10.0.1.3:8080\"]}]\n"
    );
    let ran = cli.run(&["drains"]).await;
    assert!(ran.stdout.contains("swarm node worker-2") && ran.stdout.contains("10.0.1.3:8080"));
}

#[tokio::test]
async fn a_member_that_knows_no_leader_does_not_stand_for_the_others() {
    let certificates = certificates();
    // As a new disk is that waits to be taken in.
    let (waits, _) = member(&certificates, 1, Mode::NoQuorum).await;
    let (leader, fake) = member(&certificates, 2, Mode::Leader).await;
    let cli = Cli::new(&format!("{waits},{leader}"), &certificates);
    let ran = cli.run(&["annotate", "hello"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fake.orders.lock().expect("not poisoned").len(), 1);
    let ran = cli.run(&["-o", "json", "status"]).await;
    assert!(ran.stdout.contains("\"leader\":1") || ran.stdout.contains("\"leader\": 1"), "{ran:?}");
}
