//! What operators drained, and why upstreams drain.

use dovetail_proto::v1 as pb;
use dovetail_routing::fact::Service;
use dovetail_routing::snapshot::{Published, Upstream, UpstreamState};
use dovetail_routing::state::{Drain, Drained, State};

/// All drains, each with the upstreams that it takes out of the rotation.
pub(super) fn drains(state: &State) -> Vec<pb::Drain> {
    let drained: Vec<(&Service, Vec<Upstream>)> = state
        .services()
        .map(|service| (service, state.drained_upstreams(&service.id)))
        .filter(|(_, upstreams)| !upstreams.is_empty())
        .collect();
    state.drains().map(|(of, drain)| shown(of, drain, &drained)).collect()
}

fn shown(of: &Drained, drain: &Drain, drained: &[(&Service, Vec<Upstream>)]) -> pb::Drain {
    let is_of = |service: &Service, upstream: &Upstream| match of {
        Drained::Task(id) => upstream.task.as_ref() == Some(id),
        Drained::Service(id) => service.id == *id,
        Drained::SwarmNode(id) => upstream.node.as_ref() == Some(id),
    };
    let upstreams = drained.iter().flat_map(|(service, upstreams)| {
        upstreams.iter().filter(|upstream| is_of(service, upstream))
    });
    pb::Drain {
        target: Some((&drain.target).into()),
        id: match of {
            Drained::Task(id) => id.to_string(),
            Drained::Service(id) => id.to_string(),
            Drained::SwarmNode(id) => id.to_string(),
        },
        actor: drain.actor.to_string(),
        index: drain.index.0,
        until_ms: drain.until_ms,
        upstreams: upstreams.map(by_operator).collect(),
    }
}

fn by_operator(upstream: &Upstream) -> pb::Upstream {
    pb::Upstream { reason: "operator".to_owned(), ..upstream.into() }
}

/// The routes as proxies have them, with what an operator drained beside it: that is in no
/// snapshot, and told all the same.
pub(super) fn routes(state: &State, published: &Published) -> pb::RoutesResponse {
    let mut answer = pb::RoutesResponse::from(published);
    let services = published.snapshot.routes.iter().flat_map(|route| &route.services);
    let told = answer.routes.iter_mut().flat_map(|route| &mut route.services);
    for (service, told) in services.zip(told) {
        for (upstream, told) in service.upstreams.iter().zip(&mut told.upstreams) {
            if upstream.state == UpstreamState::Draining {
                told.reason = by_swarm(state, upstream).to_owned();
            }
        }
        let drained = state.drained_upstreams(&service.id);
        told.upstreams.extend(drained.iter().map(by_operator));
    }
    answer
}

/// Why Swarm lets an upstream drain.
fn by_swarm(state: &State, upstream: &Upstream) -> &'static str {
    let is_down = |id| state.swarm_node(id).is_some_and(|node| node.down);
    if upstream.node.as_ref().is_some_and(is_down) { "node down" } else { "swarm" }
}
