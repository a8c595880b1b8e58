//! Tables over time; and routes for the tests of others.

use super::compile::compile_route;
use super::*;
use dovetail_routing::snapshot::{
    RouteOptions, RouteService, Tls, Upstream as SnapshotUpstream, UpstreamState,
};

/// A route of services with a weight and upstreams: `a` is active, `d` draining.
pub(crate) fn route(host: &str, services: &[(u16, &str)]) -> Route {
    let mut port = 1_000;
    let services = services.iter().enumerate().map(|(at, (weight, states))| RouteService {
        id: format!("service-{at}").as_str().into(),
        name: format!("service-{at}").into(),
        weight: *weight,
        dial: Dial::default(),
        upstreams: states
            .chars()
            .map(|state| {
                port += 1;
                SnapshotUpstream {
                    address: ([127, 0, 0, 1], port).into(),
                    state: match state {
                        'a' => UpstreamState::Active,
                        _ => UpstreamState::Draining,
                    },
                    task: Some(format!("task-{port}").as_str().into()),
                    node: None,
                }
            })
            .collect(),
    });
    Route {
        host: RouteHost::from_printed(host).expect("a host"),
        path: dovetail_routing::names::ContextRoot::root(),
        tls: Tls::None,
        options: RouteOptions::default(),
        services: services.collect(),
    }
}

pub(crate) fn entry(services: &[(u16, &str)]) -> RouteEntry {
    entry_of(&route("shop.example", services))
}

pub(crate) fn entry_of(route: &Route) -> RouteEntry {
    entry_after(route, None)
}

/// An entry that takes the place of another one.
pub(crate) fn entry_after(route: &Route, before: Option<&RouteEntry>) -> RouteEntry {
    compile_route(route, before, &mut Registry::default(), &UpstreamTerms::default(), 2)
}

fn snapshot(revision: u64, routes: Vec<Route>) -> Arc<Snapshot> {
    Arc::new(Snapshot { revision: Revision(revision), routes, ..Snapshot::default() })
}

#[test]
fn a_proxy_never_goes_back() {
    let shared = SharedTable::new(1, Secrets::default());
    assert!(shared.pin().is_none());
    let routes = vec![route("a.example", &[(10_000, "a")])];
    assert_eq!(shared.replace(&snapshot(5, routes.clone())), Ok(Revision(5)));
    for older in [5, 4] {
        assert!(shared.replace(&snapshot(older, vec![])).is_err());
    }
    assert_eq!(shared.pin().map(|table| table.revision()), Some(Revision(5)));
    assert_eq!(shared.replace(&snapshot(7, vec![])), Ok(Revision(7)));
}

#[test]
fn a_request_keeps_its_revision_across_a_swap() {
    let shared = SharedTable::new(1, Secrets::default());
    let routes = vec![route("a.example", &[(10_000, "a")])];
    shared.replace(&snapshot(1, routes)).expect("a table");
    let pinned = shared.pin().expect("a table");
    shared.replace(&snapshot(2, vec![])).expect("a table");
    assert_eq!(pinned.revision(), Revision(1));
    assert_eq!(pinned.entries().len(), 1);
}

#[test]
fn an_unchanged_route_keeps_its_rotation() {
    let shared = SharedTable::new(1, Secrets::default());
    let stable = route("b.example", &[(10_000, "aa")]);
    let first = vec![
        route("a.example", &[(10_000, "a")]),
        stable.clone(),
        route("c.example", &[(10_000, "a")]),
    ];
    shared.replace(&snapshot(1, first)).expect("a table");
    let before = shared.pin().expect("a table");
    let second = vec![stable, route("c.example", &[(10_000, "ad")])];
    shared.replace(&snapshot(2, second)).expect("a table");
    let after = shared.pin().expect("a table");
    assert!(Arc::ptr_eq(&before.entries()[1], &after.entries()[0]));
    assert!(!Arc::ptr_eq(&before.entries()[2], &after.entries()[1]));
}

#[test]
fn only_upstreams_that_take_requests_keep_idle_connections() {
    let shared = SharedTable::new(1, Secrets::default());
    shared.replace(&snapshot(1, vec![route("a.example", &[(10_000, "aa")])])).expect("a table");
    let before = shared.pin().expect("a table");
    let upstreams: Vec<_> =
        before.entries()[0].candidates.iter().map(|c| Arc::clone(&c.upstream)).collect();
    shared.replace(&snapshot(2, vec![route("a.example", &[(10_000, "ad")])])).expect("a table");
    assert!(upstreams[0].is_kept() && !upstreams[1].is_kept());
    shared.replace(&snapshot(3, vec![])).expect("a table");
    assert!(!upstreams[0].is_kept());
}

#[test]
fn an_entry_is_found_by_what_its_route_prints() {
    let shared = SharedTable::new(1, Secrets::default());
    let routes = ["*", "*.example.org", "shop.example"].map(|host| route(host, &[(10_000, "a")]));
    let mut routes = routes.to_vec();
    routes.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
    shared.replace(&snapshot(1, routes)).expect("newer");
    let table = shared.pin().expect("a table");
    for host in ["*", "*.example.org", "shop.example"] {
        let found = table.entry(host, "/").map(|entry| entry.route.host.to_string());
        assert_eq!(found.as_deref(), Some(host));
    }
    for (host, path) in [("a.example.org", "/"), ("shop.example", "/app"), ("", ""), ("a b", "/")] {
        assert!(table.entry(host, path).is_none(), "{host} {path}");
    }
}
