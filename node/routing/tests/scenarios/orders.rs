//! An operator's orders as a script writes and shows them.

use std::fmt::Write;

use dovetail_routing::command::Share;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{RouteHost, RouteKey};
use dovetail_routing::state::State;

/// `HOST/PATH`, of the default service cluster; `*` is the default backend.
pub(crate) fn route(text: &str) -> RouteKey {
    let (host, path) = text.split_once('/').expect("HOST/PATH");
    let host = match host {
        "*" => RouteHost::Default,
        name => name.parse().expect("a host"),
    };
    let path = format!("/{path}").parse().expect("a path");
    RouteKey { service_cluster: ServiceCluster::default(), host, path }
}

/// `SERVICE=SHARE …`.
pub(crate) fn shares(words: &[(String, Option<String>)]) -> Vec<Share> {
    let share = |(service, weight): &(String, Option<String>)| Share {
        service: service.as_str().into(),
        weight: weight.as_ref().and_then(|weight| weight.parse().ok()).expect("SERVICE=SHARE"),
    };
    words.iter().map(share).collect()
}

pub(crate) fn canaries(state: &State) -> String {
    let mut out = String::new();
    for (route, canary) in state.canaries() {
        let _ = write!(out, "{route}");
        if let Some(set) = &canary.set {
            for share in &set.shares {
                let _ = write!(out, " {}={}", share.service, share.weight);
            }
            let _ = write!(out, " by {} at {}", set.actor, set.index);
        }
        out.push('\n');
    }
    if out.is_empty() { "no canary\n".into() } else { out }
}
