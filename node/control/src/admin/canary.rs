//! The canaries, as an operator looks at them.

use dovetail_proto::v1 as pb;
use dovetail_routing::snapshot::{RouteKey, Snapshot};
use dovetail_routing::state::State;
use tonic::Status;

/// All canaries, or that of one route: then it has to have one.
pub(super) fn canaries(
    state: &State,
    route: Option<pb::RouteRef>,
) -> Result<Vec<pb::Canary>, Status> {
    let Some(route) = route else {
        return Ok(state.canaries().filter_map(|(route, _)| shown(state, route)).collect());
    };
    let route =
        RouteKey::try_from(route).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let none = || {
        Status::not_found(format!(
            "{route} has no canary: dovetail canary list shows those that there are"
        ))
    };
    Ok(vec![shown(state, &route).ok_or_else(none)?])
}

fn shown(state: &State, route: &RouteKey) -> Option<pb::Canary> {
    let set = state.canary(route)?.set.as_ref()?;
    Some(pb::Canary {
        route: Some(route.into()),
        shares: set.shares.iter().map(Into::into).collect(),
        actor: set.actor.to_string(),
        index: set.index.0,
        in_force: in_force(&state.snapshot(&route.service_cluster), route),
    })
}

/// What the services on a route get now.
fn in_force(snapshot: &Snapshot, key: &RouteKey) -> Vec<pb::Share> {
    let place = (&key.host, &key.path);
    let found = snapshot.routes.binary_search_by(|route| (&route.host, &route.path).cmp(&place));
    let Some(route) = found.ok().and_then(|position| snapshot.routes.get(position)) else {
        return Vec::new();
    };
    let services = route.services.iter();
    let share = |service: &dovetail_routing::snapshot::RouteService| pb::Share {
        service: service.name.to_string(),
        weight: u32::from(service.weight),
    };
    services.map(share).collect()
}
