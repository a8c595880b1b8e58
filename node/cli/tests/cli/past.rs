//! Verbs that tell of the past and undo it: what they ask, and what they print.

use dovetail_proto::v1 as pb;
use tonic::{Response, Status};

use crate::fake::{Cli, Mode, certificates, member};

const AT: u64 = 1_700_000_000_000;

pub(crate) fn index_at(
    request: &pb::IndexAtRequest,
) -> Result<Response<pb::IndexAtResponse>, Status> {
    let index = if request.time_ms < AT { 0 } else { 41 };
    Ok(Response::new(pb::IndexAtResponse { index, leader_time_ms: AT }))
}

fn route() -> pb::Route {
    let upstream = pb::Upstream {
        address: "10.0.1.3:8080".to_owned(),
        state: "active".to_owned(),
        ..pb::Upstream::default()
    };
    let service = pb::RouteService {
        name: "shop_v1".to_owned(),
        weight: 10_000,
        upstreams: vec![upstream],
        ..pb::RouteService::default()
    };
    pb::Route {
        host: "shop.example".to_owned(),
        path: "/".to_owned(),
        tls: "none".to_owned(),
        services: vec![service],
        rollback: Some(pb::HeldRoute {
            index: 40,
            actor: "dovetail://operator/anna".to_owned(),
            to: 12,
            until_ms: None,
            changes: 2,
        }),
        ..pb::Route::default()
    }
}

pub(crate) fn explain(
    request: &pb::ExplainRequest,
) -> Result<Response<pb::ExplainResponse>, Status> {
    if !request.url.starts_with("http") {
        return Err(Status::invalid_argument("url: must begin with http:// or https://"));
    }
    Ok(Response::new(pb::ExplainResponse {
        index: if request.at == 0 { 57 } else { request.at },
        leader_time_ms: AT,
        revision: 40,
        host: "shop.example".to_owned(),
        path: "/app".to_owned(),
        rule: "host".to_owned(),
        steps: vec!["host shop.example is published by this name".to_owned()],
        route: Some(route()),
        claims: vec![
            pb::RouteClaim { service: "shop_v1".to_owned(), since_index: 3, in_force: true },
            pb::RouteClaim { service: "rival".to_owned(), since_index: 9, in_force: false },
        ],
        chain: vec![pb::ChainLink {
            index: 40,
            leader_time_ms: AT,
            actor: "dovetail://operator/anna".to_owned(),
            cause: "rollback".to_owned(),
            what: "it was rolled back".to_owned(),
        }],
        ..pb::ExplainResponse::default()
    }))
}

pub(crate) fn diff(request: &pb::DiffRequest) -> Result<Response<pb::DiffResponse>, Status> {
    if request.from > 57 {
        return Err(Status::failed_precondition("index 99 is in the future"));
    }
    Ok(Response::new(pb::DiffResponse {
        from: request.from,
        to: if request.to == 0 { 57 } else { request.to },
        from_time_ms: AT,
        to_time_ms: AT + 1_000,
        routes: vec![pb::RouteChange {
            change: "added".to_owned(),
            after: Some(route()),
            ..pb::RouteChange::default()
        }],
    }))
}

pub(crate) fn history(
    request: &pb::HistoryRequest,
) -> Result<Response<pb::HistoryResponse>, Status> {
    // Three entries, two on a page.
    let entry = |index| pb::HistoryEntry {
        index,
        leader_time_ms: AT,
        actor: "dovetail://member/1".to_owned(),
        kind: "observed".to_owned(),
        summary: "service shop_v1".to_owned(),
        objects: vec!["service shop_v1 at version 42".to_owned()],
        routes: vec![pb::RouteHistory {
            route: Some(pb::RouteRef {
                host: "shop.example".to_owned(),
                path: "/".to_owned(),
                ..pb::RouteRef::default()
            }),
            changes: vec!["published by shop_v1".to_owned()],
        }],
        routes_changed: 3,
        ..pb::HistoryEntry::default()
    };
    let first = request.from.max(5);
    let last = (first + request.limit.min(2)).min(8);
    let entries = (first..last).map(entry).collect();
    let next = if last < 8 { last } else { 0 };
    Ok(Response::new(pb::HistoryResponse { entries, next }))
}

#[tokio::test]
async fn a_rollback_names_an_index_or_a_time() {
    let certificates = certificates();
    let (leader, fake) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    for (arguments, said) in [
        (
            &["rollback", "--to", "12", "--host", "shop.example"][..],
            "to: 12, host: \"shop.example\"",
        ),
        (&["rollback", "--to", "2026-01-01T00:00:00Z", "--for", "1h"], "for_ms: Some(3600000)"),
        (&["rollback", "--to", "1m", "--service", "shop"], "to: 41"),
        (&["release", "--service-cluster", "blue"], "service_cluster: \"blue\""),
    ] {
        let ran = cli.run(arguments).await;
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        let ordered = fake.orders.lock().expect("orders").last().cloned().expect("an order").1;
        assert!(ordered.contains(said), "{arguments:?}: {ordered}");
    }
    let ran = cli.run(&["rollback", "--to", "2020-01-01T00:00:00Z"]).await;
    assert_eq!((ran.code, ran.stderr.contains("the log begins after")), (3, true), "{ran:?}");
    for bad in [&["rollback"][..], &["rollback", "--to", "soon"], &["release", "now"]] {
        assert_eq!(cli.run(bad).await.code, 2, "{bad:?}");
    }
    let ran = cli.run(&["rollback", "--to", "12", "--dry-run"]).await;
    assert!(ran.stdout.contains("nothing was written"), "{ran:?}");
}

#[tokio::test]
async fn a_request_is_explained_to_people_and_to_scripts() {
    let certificates = certificates();
    let (leader, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    let ran = cli.run(&["explain", "GET", "https://shop.example/app"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    for said in [
        "  1. host shop.example is published by this name",
        "shop_v1 (incumbent)",
        "not in force: the claim of rival since index 9",
        "operator/anna",
        "it was rolled back",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    let at = ["-o", "json", "explain", "GET", "https://shop.example/app", "--at", "41"];
    let ran = cli.run(&at).await;
    let explained: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(explained["index"], 41);
    assert_eq!(explained["route"]["rollback"]["to"], 12);
    assert_eq!(explained["chain"][0]["index"], 40);
    let ran = cli.run(&["explain", "GET", "shop.example"]).await;
    assert_eq!((ran.code, ran.stderr.contains("http://")), (3, true), "{ran:?}");
}

#[tokio::test]
async fn history_goes_on_over_pages_and_diff_names_both_ends() {
    let certificates = certificates();
    let (leader, _) = member(&certificates, 1, Mode::Leader).await;
    let cli = Cli::new(&leader, &certificates);
    let ran = cli.run(&["-o", "json", "history"]).await;
    let indexes: Vec<_> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["index"].clone())
        .collect();
    assert_eq!(indexes, [5, 6, 7]);
    let ran = cli.run(&["history", "--limit", "1", "--since", "6"]).await;
    for said in [
        "6  ",
        "by service shop_v1 at version 42",
        "shop.example/: published by shop_v1",
        "2 more routes",
        "more: --since 7",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    let ran = cli.run(&["diff", "12"]).await;
    assert!(ran.stdout.starts_with("index 12 (20"), "{}", ran.stdout);
    assert!(ran.stdout.contains("added"), "{}", ran.stdout);
    let ran = cli.run(&["-o", "json", "diff", "12", "41"]).await;
    let diff: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&diff["from"], &diff["to"]), (&12.into(), &41.into()));
    assert_eq!(diff["routes"][0]["change"], "added");
    let ran = cli.run(&["diff", "99"]).await;
    assert_eq!((ran.code, ran.stderr.contains("in the future")), (3, true), "{ran:?}");
}
