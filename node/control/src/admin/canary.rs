//! The canaries, as an operator looks at them.

use dovetail_proto::v1 as pb;
use dovetail_routing::snapshot::{RouteKey, Snapshot};
use dovetail_routing::state::{Run, State};
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
    let canary = state.canary(route)?;
    let (actor, index) = canary.ordered()?;
    Some(pb::Canary {
        route: Some(route.into()),
        shares: canary.shares().unwrap_or_default().iter().map(Into::into).collect(),
        actor: actor.to_string(),
        index: index.0,
        in_force: in_force(&state.snapshot(&route.service_cluster), route),
        run: canary.run.as_ref().map(running),
    })
}

fn running(run: &Run) -> pb::CanaryRun {
    let Run { plan, .. } = run;
    pb::CanaryRun {
        from: run.from.to_string(),
        to: run.to.to_string(),
        steps: plan.steps.iter().copied().map(u32::from).collect(),
        interval_ms: plan.interval_ms,
        max_error_rate: plan.max_error_rate.map(u32::from),
        max_p99_ms: plan.max_p99_ms,
        min_requests: plan.min_requests(),
        step: run.step,
        state: run.state.as_str().to_owned(),
        since_ms: run.since_ms,
        next_step_ms: run.next_step_ms(),
        actor: run.actor.to_string(),
        index: run.index.0,
        changed_by: run.changed_by.to_string(),
        changed_at: run.changed_at.0,
        reason: run.reason.to_string(),
        figures: run.evidence.map(|figures| pb::CanaryFigures {
            requests: figures.requests,
            errors: figures.errors,
            p99_micros: figures.p99_micros,
            proxies: figures.proxies,
        }),
    }
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
