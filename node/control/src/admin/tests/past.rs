//! What was, who changed it, why it is so, and how it is given back.

use dovetail_routing::fact::LabelValue;

use super::*;

const CORE: &str = "dovetail://member/9";

/// The services at one host, in this order, each with a label besides.
fn at_host(names: &[(&str, u8)], label: Option<(&str, &str)>) -> dovetail_routing::fact::Listing {
    let mut listing = listing(names);
    for service in listing.services.values_mut() {
        let text = |text: &str| LabelValue::Text(text.into());
        service.labels.insert("com.docker.lb.hosts".into(), text("web.example"));
        if let Some((key, value)) = label {
            service.labels.insert(key.into(), text(value));
            service.version.0 += 1;
        }
    }
    listing
}

/// 1: web with two tasks. 2: only by HTTPS.
fn past() -> Stage {
    let stage = stage(FakeQuorum::leader());
    stage.quorum.know(&at_host(&[("web", 2)], None));
    stage.quorum.know(&at_host(&[("web", 2)], Some(("com.docker.lb.ssl_only", "true"))));
    stage
}

fn rollback(request_id: &str, to: u64, host: &str) -> pb::RollbackRequest {
    pb::RollbackRequest {
        request_id: request_id.to_owned(),
        dry_run: false,
        command: Some(pb::RollbackRoutes {
            to,
            host: host.to_owned(),
            ..pb::RollbackRoutes::default()
        }),
    }
}

fn release(request_id: &str) -> pb::ReleaseRequest {
    let command = Some(pb::ReleaseRollback::default());
    pb::ReleaseRequest { request_id: request_id.to_owned(), dry_run: false, command }
}

fn routes(at: u64, intent: bool) -> pb::RoutesRequest {
    pb::RoutesRequest { at, intent, ..pb::RoutesRequest::default() }
}

#[tokio::test]
async fn a_rollback_restores_the_intent_and_a_release_returns_to_swarm() {
    let stage = past();
    let (mut anna, mut vera) = (stage.as_(ANNA), stage.as_(VIEWER));
    let last = stage.quorum.current().applied_index().0;
    let digest = async |vera: &mut Client<Channel>, at| {
        vera.routes(routes(at, true)).await.expect("told").into_inner().digest
    };
    let (then, now) = (digest(&mut vera, 1).await, digest(&mut vera, 0).await);
    assert_ne!(then, now);

    let dry = pb::RollbackRequest { dry_run: true, ..rollback("r1", 1, "") };
    let dry = anna.rollback(dry).await.expect("told").into_inner();
    assert_eq!((dry.applied.as_str(), dry.routes.len()), ("changed", 1));
    assert_eq!(digest(&mut vera, 0).await, now, "nothing was written");
    let done = anna.rollback(rollback("r1", 1, "")).await.expect("written").into_inner();
    assert_eq!((done.index, done.applied.as_str()), (last + 1, "changed"));
    assert_eq!(digest(&mut vera, 0).await, then, "exactly what it was");

    let shown = vera.routes(routes(0, false)).await.expect("told").into_inner();
    let held = shown.routes[0].rollback.clone().expect("it is held");
    assert_eq!((held.index, held.to, held.changes), (done.index, 1, 0));
    assert_eq!(held.actor, "dovetail://operator/anna");
    for (refused, said) in [
        (rollback("r2", 99, ""), "index 99 is in the future"),
        (rollback("r3", 1, "nowhere.example"), "no routes of host nowhere.example"),
        (rollback("r4", 1, "no host"), "command.host"),
    ] {
        let status = anna.rollback(refused).await.expect_err(said);
        assert!(status.message().contains(said), "{}", status.message());
    }
    anna.release(release("r5")).await.expect("written");
    assert_eq!(digest(&mut vera, 0).await, now, "what Swarm says");
    let status = anna.release(release("r6")).await.expect_err("nothing is held");
    assert!(status.message().contains("nothing to release"), "{}", status.message());
}

#[tokio::test]
async fn routes_are_told_as_they_were() {
    let stage = past();
    let mut vera = stage.as_(VIEWER);
    let first = vera.routes(routes(1, false)).await.expect("told").into_inner();
    assert_eq!((first.revision, first.routes[0].services[0].upstreams.len()), (1, 2));
    assert_eq!(first.routes[0].options, None);
    let last = vera.routes(routes(0, false)).await.expect("told").into_inner();
    assert_eq!(last.routes[0].options.as_ref().map(|options| options.ssl_only), Some(true));

    let ask = |from, to| pb::DiffRequest { from, to };
    let diff = vera.diff(ask(1, 0)).await.expect("told").into_inner();
    assert_eq!((diff.from, diff.to), (1, stage.quorum.current().applied_index().0));
    assert_eq!((diff.routes.len(), diff.routes[0].change.as_str()), (1, "changed"));
    let same = vera.diff(ask(1, 1)).await.expect("told").into_inner();
    assert_eq!(same.routes, []);
    for (from, to, said) in [(0, 1, "from: name"), (1, 99, "in the future"), (99, 0, "99")] {
        let status = vera.diff(ask(from, to)).await.expect_err(said);
        assert!(status.message().contains(said), "{}", status.message());
    }
    let status = vera.routes(routes(99, false)).await.expect_err("the future");
    assert!(status.message().contains("index 99 is in the future"), "{}", status.message());
}

#[tokio::test]
async fn history_names_author_object_and_change() {
    let stage = past();
    let mut anna = stage.as_(ANNA);
    anna.rollback(rollback("r1", 1, "")).await.expect("written");
    anna.annotate(remark("r2", "CHG-1")).await.expect("written");
    let mut vera = stage.as_(VIEWER);
    let all = vera.history(pb::HistoryRequest::default()).await.expect("told").into_inner();
    assert_eq!(all.next, 0);
    let told: Vec<_> = all
        .entries
        .iter()
        .map(|entry| {
            let changes = entry.routes.iter().flat_map(|route| route.changes.clone());
            (entry.actor.as_str(), changes.collect::<Vec<_>>().join("; "))
        })
        .collect();
    assert_eq!(
        told,
        [
            (CORE, "published by web".to_owned()),
            (CORE, "redirect to HTTPS on".to_owned()),
            ("dovetail://operator/anna", "redirect to HTTPS off".to_owned()),
            ("dovetail://operator/anna", String::new()),
        ]
    );
    assert!(all.entries[0].objects.iter().any(|one| one.starts_with("service web at version")));
    assert!(all.entries[2].summary.contains("roll all routes back to 1"));

    // With a filter only what changed such routes; and page by page.
    let of = |host: &str, from, limit| pb::HistoryRequest {
        host: host.to_owned(),
        service: "web".to_owned(),
        from,
        limit,
    };
    let page = vera.history(of("web.example", 0, 2)).await.expect("told").into_inner();
    assert_eq!((page.entries.len(), page.next), (2, all.entries[2].index));
    let rest = vera.history(of("web.example", page.next, 2)).await.expect("told").into_inner();
    assert_eq!((rest.entries.len(), rest.next), (1, 0));
    let none = vera.history(of("other.example", 0, 0)).await.expect("told").into_inner();
    assert_eq!(none.entries, []);
    let status = vera.history(of("no host", 0, 0)).await.expect_err("no host");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_request_is_explained_by_the_entries_that_made_it_so() {
    let stage = past();
    let mut anna = stage.as_(ANNA);
    let ask = |url: &str, at| pb::ExplainRequest {
        method: "GET".to_owned(),
        url: url.to_owned(),
        at,
        ..pb::ExplainRequest::default()
    };
    let now = anna.explain(ask("http://WEB.example:80/x?y", 0)).await.expect("told").into_inner();
    assert_eq!(
        (now.host.as_str(), now.path.as_str(), now.rule.as_str()),
        ("web.example", "/x", "host")
    );
    let steps = now.steps.join("\n");
    for said in ["published by this name", "plain HTTP is redirected", "one of 2 active upstreams"]
    {
        assert!(steps.contains(said), "{said}: {steps}");
    }
    assert_eq!((now.claims.len(), now.claims[0].since_index, now.claims[0].in_force), (1, 1, true));
    let chain = now.chain.iter().map(|link| format!("{} {}", link.index, link.what));
    let chain = chain.collect::<Vec<_>>().join("\n");
    for said in
        ["the claim of web began", "task web.1 was last shown", "service web was last shown"]
    {
        assert!(chain.contains(said), "{said}: {chain}");
    }
    assert!(now.chain.is_sorted_by(|a, b| a.index > b.index), "newest first");

    let earlier = anna.explain(ask("http://web.example/", 1)).await.expect("told").into_inner();
    assert_eq!((earlier.index, earlier.revision), (1, 1));
    assert!(!earlier.steps.join("\n").contains("redirected"), "{:?}", earlier.steps);

    anna.rollback(rollback("r1", 1, "")).await.expect("written");
    let held = anna.explain(ask("https://web.example/", 0)).await.expect("told").into_inner();
    assert!(held.steps.join("\n").contains("differs from Swarm by rollback at index"));
    assert!(held.route.expect("a route").rollback.is_some());

    for (url, rule) in [("http://other.example/", "unknown host")] {
        let unknown = anna.explain(ask(url, 0)).await.expect("told").into_inner();
        assert_eq!((unknown.rule.as_str(), unknown.route), (rule, None));
        assert!(unknown.steps[0].contains("503"), "{:?}", unknown.steps);
    }
    for bad in ["web.example", "ftp://web.example/", "http://", "http://a b/"] {
        let status = anna.explain(ask(bad, 0)).await.expect_err(bad);
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}: {status:?}");
    }
}

#[tokio::test]
async fn a_time_is_found_in_the_ledger() {
    let stage = past();
    let mut vera = stage.as_(VIEWER);
    let last = stage.quorum.current().applied_index().0;
    let written_ms = stage.quorum.log().last().expect("an entry").leader_time_ms;
    for (time_ms, index) in [(999, 0), (written_ms, last), (u64::MAX, last)] {
        let at = vera.index_at(pb::IndexAtRequest { time_ms }).await.expect("told").into_inner();
        assert_eq!(at.index, index, "{time_ms}");
    }
}

#[tokio::test]
async fn what_was_trimmed_is_refused_and_what_is_kept_is_told() {
    let stage = past();
    let (mut anna, mut vera) = (stage.as_(ANNA), stage.as_(VIEWER));
    anna.rollback(rollback("r1", 1, "")).await.expect("written");
    let second = vera.routes(routes(2, false)).await.expect("told").into_inner();

    let stage = past();
    let (mut anna, mut vera) = (stage.as_(ANNA), stage.as_(VIEWER));
    anna.annotate(remark("r1", "CHG-1")).await.expect("written");
    stage.quorum.trimmed.store(2, Ordering::Relaxed);
    let kept = vera.routes(routes(2, false)).await.expect("told").into_inner();
    assert_eq!((kept.digest, kept.revision), (second.digest, 2), "the base itself is a past");
    let all = vera.history(pb::HistoryRequest::default()).await.expect("told").into_inner();
    assert_eq!(all.entries.len(), 1);
    let status = vera.routes(routes(1, false)).await.expect_err("it is gone");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let said =
        "index 1 is older than what this member keeps: the oldest state is that after index 2";
    assert!(status.message().contains(said), "{}", status.message());
    let from = |from| pb::HistoryRequest { from, ..pb::HistoryRequest::default() };
    vera.history(from(3)).await.expect("told");
    let status = vera.history(from(2)).await.expect_err("the state before it is gone");
    assert!(status.message().contains("the oldest state"), "{}", status.message());

    // Without the state before them, rows say nothing of routes; what was rebuilt stays.
    stage.quorum.base_lost.store(true, Ordering::Relaxed);
    vera.routes(routes(2, false)).await.expect("still known");
    let stage = past();
    stage.quorum.trimmed.store(1, Ordering::Relaxed);
    stage.quorum.base_lost.store(true, Ordering::Relaxed);
    let mut vera = stage.as_(VIEWER);
    let status = vera.history(from(0)).await.expect_err("no state is kept");
    assert!(status.message().contains("keeps no state"), "{}", status.message());
}

#[tokio::test]
async fn the_next_page_of_a_history_goes_on_where_the_last_one_ended() {
    let stage = stage(FakeQuorum::leader());
    let mut anna = stage.as_(ANNA);
    for number in 0..20 {
        let (id, text) = (format!("r{number}"), format!("CHG-{number}"));
        anna.annotate(remark(&id, &text)).await.expect("written");
    }
    let mut vera = stage.as_(VIEWER);
    let mut told = Vec::new();
    let (mut from, mut pages) = (0, 0);
    loop {
        let ask = pb::HistoryRequest { from, limit: 6, ..pb::HistoryRequest::default() };
        let page = vera.history(ask).await.expect("told").into_inner();
        told.extend(page.entries.iter().map(|entry| entry.index));
        pages += 1;
        from = page.next;
        if from == 0 {
            break;
        }
    }
    assert_eq!((pages, told), (4, (1..=20).collect()));
    let reads = stage.quorum.ledger_reads.lock().expect("not poisoned").clone();
    assert_eq!(reads, [1, 7, 13, 19], "no page reads what the one before it has read");
}
