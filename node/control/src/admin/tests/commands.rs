//! Commands: what all of them have in common, shown on canaries.

use super::*;

fn canary(request_id: &str, host: &str, shares: &[(&str, u32)]) -> pb::SetCanaryRequest {
    let route = pb::RouteRef { host: host.to_owned(), ..pb::RouteRef::default() };
    let share = |(service, weight): &(&str, u32)| pb::Share {
        service: (*service).to_owned(),
        weight: *weight,
    };
    let shares = shares.iter().map(share).collect();
    pb::SetCanaryRequest {
        request_id: request_id.to_owned(),
        dry_run: false,
        command: Some(pb::SetCanary { route: Some(route), shares, expected_index: None }),
    }
}

#[tokio::test]
async fn a_canary_is_ordered_on_any_member_and_shown_to_all() {
    let leader = stage(FakeQuorum::leader());
    leader.quorum.know(&listing(&[("web", 2), ("api", 1)]));
    let follower = stage(FakeQuorum::follower());
    follower.with_leader(&leader);
    let mut anna = follower.as_(ANNA);
    let all_to_web = || canary("r1", "web.example", &[("web", 10_000)]);
    let set = anna.set_canary(all_to_web()).await.expect("written").into_inner();
    assert_eq!((set.index, set.first_answer, set.dry_run), (2, false, false));
    let log = leader.quorum.log();
    assert_eq!((&*log[1].actor, &*log[1].cause), ("dovetail://operator/anna", "canary set"));

    let mut vera = follower.as_(VIEWER);
    let shown = vera.canaries(pb::CanariesRequest::default()).await.expect("answered");
    let shown = shown.into_inner().canaries;
    assert_eq!((shown.len(), shown[0].index, shown[0].actor.as_str()), (1, 2, &*log[1].actor));
    assert_eq!(shown[0].in_force, [pb::Share { service: "web".to_owned(), weight: 10_000 }]);
    let elsewhere = pb::RouteRef { host: "api.example".to_owned(), ..pb::RouteRef::default() };
    let ask = pb::CanariesRequest { stale: false, route: Some(elsewhere) };
    let none = vera.canaries(ask).await.expect_err("it has none");
    assert_eq!(none.code(), Code::NotFound);
    assert!(none.message().contains("api.example/ has no canary"), "{}", none.message());

    let again = anna.set_canary(all_to_web()).await.expect("answered").into_inner();
    assert_eq!((again.index, again.revision, again.first_answer), (2, set.revision, true));
    for (refused, said) in [
        (canary("r1", "web.example", &[("web", 9_000), ("web", 1_000)]), "was used for another"),
        (canary("r2", "web.example", &[("web", 9_000)]), "must sum to 10000"),
        (canary("r3", "nowhere.example", &[("web", 10_000)]), "dovetail routes lists"),
        (canary("r4", "web.example", &[("shop", 10_000)]), "is not on"),
        (canary("r5", "web.example", &[("web", 70_000)]), "is above 10000"),
        (canary("r6", "no host", &[("web", 10_000)]), "route.host"),
    ] {
        let status = anna.set_canary(refused).await.expect_err(said);
        assert!(status.message().contains(said), "{}", status.message());
    }
    // A refusal is an answer, too: the same again is not a new try.
    let refused = canary("r2", "web.example", &[("web", 9_000)]);
    let status = anna.set_canary(refused).await.expect_err("refused before");
    assert!(status.message().contains("a new try needs a new request id"), "{}", status.message());
}

#[tokio::test]
async fn a_dry_run_tells_what_would_happen_and_writes_nothing() {
    let leader = stage(FakeQuorum::leader());
    let mut both = listing(&[("web", 1), ("api", 1)]);
    for service in both.services.values_mut() {
        let hosts = dovetail_routing::fact::LabelValue::Text("web.example".into());
        service.labels.insert("com.docker.lb.hosts".into(), hosts);
    }
    leader.quorum.know(&both);
    let follower = stage(FakeQuorum::follower());
    follower.with_leader(&leader);
    let mut anna = follower.as_(ANNA);
    let digest = leader.quorum.current().digest();
    let order = |dry_run| pb::SetCanaryRequest {
        dry_run,
        ..canary("r1", "web.example", &[("web", 9_000), ("api", 1_000)])
    };
    let dry = anna.set_canary(order(true)).await.expect("told").into_inner();
    assert_eq!((dry.index, dry.applied.as_str(), dry.dry_run), (2, "changed", true));
    let weights = |route: &Option<pb::Route>| {
        let services = &route.as_ref().expect("a route").services;
        services.iter().map(|service| service.weight).collect::<Vec<_>>()
    };
    assert_eq!(dry.routes.len(), 1);
    assert_eq!(weights(&dry.routes[0].before), [5_000, 5_000]);
    let mut after = weights(&dry.routes[0].after);
    after.sort_unstable();
    assert_eq!(after, [1_000, 9_000]);
    assert_eq!(leader.quorum.current().digest(), digest, "nothing was written");
    assert_eq!(leader.quorum.log().len(), 1);
    let refused = pb::SetCanaryRequest { dry_run: true, ..canary("r1", "web.example", &[]) };
    let status = anna.set_canary(refused).await.expect_err("refused");
    assert_eq!(status.code(), Code::FailedPrecondition);

    // A dry run uses no request id up, and tells of one that is.
    let set = anna.set_canary(order(false)).await.expect("written").into_inner();
    assert_eq!((set.index, set.first_answer), (dry.index, false));
    assert_eq!(set.revision, dry.revision, "as it was told");
    let dry = anna.set_canary(order(true)).await.expect("told").into_inner();
    assert_eq!((dry.index, dry.first_answer), (2, true));
}

#[tokio::test]
async fn a_command_has_a_limit_in_bytes() {
    let stage = stage(FakeQuorum::leader());
    let share = ("x".repeat(1_000), 1_u32);
    let shares: Vec<_> = (0..1_100).map(|_| (share.0.as_str(), share.1)).collect();
    let large = canary("r1", "web.example", &shares);
    let status = stage.as_(ANNA).set_canary(large).await.expect_err("too large");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("at most 1048576 are taken"), "{}", status.message());
    assert!(stage.quorum.log().is_empty());
}

fn members(
    request_id: &str,
    change: pb::MemberChange,
    members: &[u64],
    address: &str,
) -> pb::ChangeMembersRequest {
    let (members, address) = (members.to_vec(), address.to_owned());
    pb::ChangeMembersRequest {
        request_id: request_id.to_owned(),
        dry_run: false,
        command: Some(pb::ChangeMembers { change: change.into(), members, address }),
    }
}

#[tokio::test]
async fn a_change_of_members_is_framed_by_entries_with_its_author() {
    use pb::MemberChange::{Add, Promote, Remove, Replace, TransferLeader};
    let leader = stage(FakeQuorum::leader());
    let follower = stage(FakeQuorum::follower());
    follower.with_leader(&leader);
    let mut root = follower.as_("dovetail://operator/root?role=admin");
    let add = || members("r1", Add, &[4], "core-4:8080");
    let dry = pb::ChangeMembersRequest { dry_run: true, ..add() };
    let told = root.change_members(dry).await.expect("told").into_inner();
    assert_eq!((told.applied.as_str(), told.dry_run), ("changed", true));
    assert!(leader.quorum.log().is_empty());

    let done = root.change_members(add()).await.expect("done").into_inner();
    assert_eq!((done.index, done.applied.as_str(), done.first_answer), (2, "changed", false));
    let log = leader.quorum.log();
    assert!(log.iter().all(|entry| &*entry.actor == "dovetail://operator/root"));
    assert_eq!([&*log[0].cause, &*log[1].cause], ["members: begun", "members"]);
    let carried_out = leader.quorum.members_changed.lock().expect("not poisoned").clone();
    assert_eq!(carried_out.len(), 1);
    assert_eq!(carried_out[0].1.0, 1, "its id comes from the entry that ordered it");

    let again = root.change_members(add()).await.expect("answered").into_inner();
    assert_eq!((again.index, again.first_answer), (2, true));
    assert_eq!(leader.quorum.members_changed.lock().expect("not poisoned").len(), 1);
    for (refused, said) in [
        (members("r1", Add, &[5], "core-5:8080"), "was used for another command"),
        (members("r2", Remove, &[2, 3], ""), "no quorum would be left"),
        (members("r3", Add, &[5], ""), "ID=HOST:PORT"),
        (members("r4", Add, &[5], "core-5"), "is not HOST:PORT"),
        (members("r5", Promote, &[], ""), "it has to be 1 to 5"),
        (members("r6", Promote, &[4, 4], ""), "named twice"),
        (members("r7", Replace, &[1, 2], ""), "it has to be one"),
        (members("r8", TransferLeader, &[1_000], ""), "from 1 to 999"),
        (members("r9", pb::MemberChange::Unspecified, &[1], ""), "is no known change"),
    ] {
        let status = root.change_members(refused).await.expect_err(said);
        assert!(status.message().contains(said), "{}", status.message());
    }
    let status = follower.as_(ANNA).change_members(add()).await.expect_err("no admin");
    assert!(status.message().contains("it needs role admin"), "{}", status.message());
}

fn rules(request_id: &str, rules: u32) -> pb::ActivateRulesRequest {
    pb::ActivateRulesRequest {
        request_id: request_id.to_owned(),
        dry_run: false,
        command: Some(pb::ActivateRules { rules }),
    }
}

#[tokio::test]
async fn rules_are_switched_when_every_member_and_proxy_can_follow() {
    const BOSS: &str = "dovetail://operator/boss?role=admin";
    let stage = stage(FakeQuorum::leader());
    stage.quorum.know(&listing(&[("web", 1)]));
    let told = |rules_newest| pb::LocalResponse { rules_newest, ..pb::LocalResponse::default() };
    let member = |slot, told: Option<pb::LocalResponse>| {
        let mut locals = stage.peers.locals.lock().expect("not poisoned");
        match told {
            Some(told) => locals.insert(slot, told),
            None => locals.remove(&slot),
        };
    };
    let proxy = |format_newest, connected| {
        let name = "edge-1".to_owned();
        let proxy = pb::LocalSubscriber {
            name,
            format_newest,
            connected,
            ..pb::LocalSubscriber::default()
        };
        pb::LocalResponse { subscribers: vec![proxy], ..told(2) }
    };
    let newest = dovetail_routing::snapshot::SNAPSHOT_FORMAT;
    let mut boss = stage.as_(BOSS);
    for (second, third, id, given, said) in [
        (Some(told(2)), None, "r1", 2, "member 3 does not answer"),
        (Some(told(2)), Some(told(0)), "r2", 2, "member 3 knows rule sets up to 1, not 2"),
        (Some(proxy(newest - 1, true)), Some(told(2)), "r3", 2, "proxy \"edge-1\""),
        (Some(told(2)), Some(told(2)), "r4", 0, "rule set 0 is not known"),
        (Some(told(2)), Some(told(2)), "r5", 3, "rule set 3 is not known to this build"),
    ] {
        member(2, second);
        member(3, third);
        let status = boss.activate_rules(rules(id, given)).await.expect_err(said);
        assert!(status.message().contains(said), "{}", status.message());
    }
    assert_eq!(stage.quorum.log().len(), 1, "nothing was written");

    // One that is gone holds nobody up.
    member(2, Some(proxy(newest - 1, false)));
    let done = boss.activate_rules(rules("r6", 2)).await.expect("written").into_inner();
    assert_eq!((done.index, done.first_answer), (2, false));
    assert_eq!(stage.quorum.current().rules().number(), 2);
    let status = boss.status(pb::StatusRequest::default()).await.expect("answered").into_inner();
    let newest: Vec<_> = status.members.iter().map(|member| member.rules_newest).collect();
    assert_eq!((status.rules, newest), (2, vec![2, 2, 2]));
    // A repetition is answered, whoever is down by now.
    member(3, None);
    let again = boss.activate_rules(rules("r6", 2)).await.expect("answered").into_inner();
    assert_eq!((again.index, again.first_answer), (2, true));
}

#[tokio::test]
async fn commands_in_flight_have_a_limit_and_the_next_one_is_told() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let stage = stage(FakeQuorum::leader());
    stage.quorum.hangs.store(true, Ordering::Relaxed);
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..=COMMANDS_MAX {
        let mut anna = stage.as_(ANNA);
        waiting.spawn(async move { anna.annotate(remark(&format!("r{number}"), "x")).await });
    }
    // All but one wait for the quorum.
    let refused = timeout(PATIENCE, waiting.join_next()).await.expect("in time");
    let refused = refused.expect("one").expect("no panic").expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("1024 commands are being written"), "{refused:?}");
    assert!(stage.quorum.log().is_empty());

    // Whoever gives up makes room.
    waiting.shutdown().await;
    stage.quorum.hangs.store(false, Ordering::Relaxed);
    let mut anna = stage.as_(ANNA);
    let written = async {
        loop {
            if let Ok(written) = anna.annotate(remark("at-last", "x")).await {
                return written.into_inner();
            }
        }
    };
    assert_eq!(timeout(PATIENCE, written).await.expect("in time").index, 1);
}
