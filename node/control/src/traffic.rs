//! What services answered on routes with a canary, as all connected proxies counted it.
//!
//! ```text
//!  state's canaries ─► keep-alive (wanted) ─► proxy ─► fleet ─► Local ─► the leader: gather
//! ```
//!
//! Soft state, in no entry: what a canary's plan is judged on goes into the entry that
//! advances or aborts it.

use std::collections::BTreeMap;
use std::time::Duration;

use dovetail_proto::v1 as pb;
use dovetail_routing::latency::Latencies;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::state::State;

use crate::local::merge;
use crate::ports::{Asked, Peers, Quorum, QuorumView};
use crate::services::Core;

/// The routes of a service cluster of which proxies are to tell what they count.
pub(crate) fn wanted(state: &State, service_cluster: &ServiceCluster) -> Vec<pb::RouteRef> {
    let canaries = state.canaries().map(|(route, _)| route);
    let of_cluster = canaries.filter(|route| route.service_cluster == *service_cluster);
    let named = of_cluster.map(|route| pb::RouteRef {
        service_cluster: String::new(),
        host: route.host.to_string(),
        path: route.path.to_string(),
    });
    named.collect()
}

/// What one connected proxy counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTraffic {
    /// Its name; where it has none, its address.
    pub proxy: String,
    pub service_cluster: String,
    /// How old the figures are; `None` while it has told none.
    pub age: Option<Duration>,
    /// By host, path and service, as routes print them.
    pub services: BTreeMap<(String, String, String), Counted>,
}

/// A service's counters at one proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Another one when they began anew.
    pub start: u64,
    /// Attempts; of a request that was repeated, each.
    pub requests: u64,
    /// Answers of 5xx, and attempts without a whole answer.
    pub errors: u64,
    pub latencies: Latencies,
}

impl<Q: Quorum, P: Peers, D> Core<Q, P, D> {
    /// What every connected proxy counted last, sorted by service cluster and name.
    ///
    /// A proxy that follows a member out of reach is left out: it will follow another one
    /// soon, or is cut off from the core together with its member.
    pub async fn traffic(&self, view: &QuorumView) -> Vec<ProxyTraffic> {
        let asked = Asked { traffic: true, ..Asked::default() };
        let answers = self.locals(view, asked).await;
        let members = view.members.iter().zip(answers);
        let subscribers = members.filter_map(|(member, answer)| {
            let connected = answer?.subscribers.into_iter().filter(|one| one.connected);
            Some((member.slot, connected.collect()))
        });
        let mut all: Vec<_> = merge(subscribers).into_iter().map(|(_, one)| of(one)).collect();
        all.sort_by(|a, b| (&a.service_cluster, &a.proxy).cmp(&(&b.service_cluster, &b.proxy)));
        all
    }
}

fn of(subscriber: pb::LocalSubscriber) -> ProxyTraffic {
    let pb::LocalSubscriber { name, address, service_cluster, traffic, .. } = subscriber;
    let age = traffic.as_ref().map(|traffic| Duration::from_millis(traffic.age_ms));
    let services = traffic.map(|traffic| traffic.services).unwrap_or_default();
    let counted = |one: pb::ServiceTraffic| {
        // What is no bucket counts as the slowest.
        let bucket = |bucket| u16::try_from(bucket).unwrap_or(u16::MAX);
        let latencies = one.latencies.iter().map(|one| (bucket(one.bucket), one.count));
        let counted = Counted {
            start: one.start,
            requests: one.requests,
            errors: one.errors,
            latencies: Latencies::new(latencies),
        };
        ((one.host, one.path, one.service), counted)
    };
    ProxyTraffic {
        proxy: if name.is_empty() { address } else { name },
        service_cluster,
        age,
        services: services.into_iter().map(counted).collect(),
    }
}
