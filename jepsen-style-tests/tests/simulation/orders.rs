//! What clients order: every kind of command, about few routes, so that orders meet.

use std::sync::Arc;
use std::time::Duration;

use dovetail_routing::canary::Plan;
use dovetail_routing::command::{DrainTarget, Share};
use dovetail_routing::entry::{ClusterConfig, ProxyOptions};
use dovetail_routing::intent::Scope;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::rules::RuleSet;
use dovetail_routing::snapshot::{Digest, RouteHost, RouteKey};
use dovetail_routing::{Command, LogIndex};

use super::world::Shared;

/// What a client wants next.
pub(crate) fn next(world: &Shared) -> Command {
    let services: Vec<Arc<str>> =
        world.swarm.truth().services.values().map(|service| Arc::clone(&service.name)).collect();
    let newest = world.checks().acknowledged.last();
    let mut random = world.random();
    let service_cluster = ServiceCluster::default();
    let note = Command::Annotate { text: format!("note {}", random.u32(..)).into() };
    let (Some(some), Some(other)) =
        (random.choice(&services).cloned(), random.choice(&services).cloned())
    else {
        return note;
    };
    let host = format!("h{}.example", random.u8(0..4));
    let Ok(host) = host.parse() else { return note };
    let route = RouteKey {
        service_cluster: service_cluster.clone(),
        host: RouteHost::Named(host),
        path: Default::default(),
    };
    let scope = match random.bool() {
        true => Scope { host: Some(route.host.clone()), ..Scope::default() },
        false => Scope::default(),
    };
    match random.u8(0..28) {
        0 => Command::DrainUpstream {
            target: DrainTarget::Service(some),
            for_ms: random.bool().then(|| random.u64(500..8_000)),
            force: random.bool(),
        },
        1 => Command::UndrainUpstream { target: DrainTarget::Service(some) },
        2 => {
            let shares = shares(some, other, random.u16(1..10_000));
            Command::SetCanary { route, shares, expected: None }
        }
        3 => Command::ClearCanary { route },
        4 => Command::PromoteCanary { route, service: random.bool().then_some(some) },
        5 => Command::RollbackRoutes {
            service_cluster,
            to: LogIndex(random.u64(0..=newest)),
            scope,
            for_ms: random.bool().then(|| random.u64(500..8_000)),
        },
        6 => Command::ReleaseRollback { service_cluster, scope },
        7 => Command::StartCanary {
            route,
            from: some,
            to: other,
            plan: Plan {
                steps: vec![1_000, 5_000],
                interval_ms: random.u64(100..3_000),
                max_error_rate: Some(500),
                max_p99_ms: None,
                min_requests: Some(1),
            },
        },
        8 => Command::PauseCanary { route },
        9 => Command::ResumeCanary { route },
        10 => Command::AbortCanary { route, evidence: None },
        11 => Command::ApplyConfig(config(&mut random)),
        12 if random.u8(0..4) == 0 => Command::ActivateRules { rules: RuleSet::NEWEST },
        _ => note,
    }
}

fn shares(one: Arc<str>, other: Arc<str>, weight: u16) -> Vec<Share> {
    vec![
        Share { service: one, weight },
        Share { service: other, weight: 10_000_u16.saturating_sub(weight) },
    ]
}

fn config(random: &mut fastrand::Rng) -> ClusterConfig {
    let options = ProxyOptions {
        read_timeout: Some(Duration::from_secs(random.u64(1..90))),
        ip_hash: random.bool(),
        ..ProxyOptions::default()
    };
    ClusterConfig {
        source: Digest([random.u8(..); 32]),
        poll_interval: None,
        proxies: vec![(ServiceCluster::default(), options)],
    }
}
