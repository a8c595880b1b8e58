//! What would become of the routes if services were deployed: a copy of the state is
//! shown what Swarm would show, and compared with the state itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dovetail_config::planned::{self, Plan, Planned, SERVICES_MAX};
use dovetail_proto::v1 as pb;
use dovetail_routing::fact::{EndpointMode, HostPort, Scale};
use dovetail_routing::state::{Problem, State};

/// Bytes of a name of a service, a network or a secret.
const NAME_BYTES_MAX: usize = 255;
/// Networks, host ports or labels of one service, and secrets in all.
const PARTS_MAX: usize = 1_000;
/// What stands for the address of an upstream that does not run yet.
const NEW: &str = "new";

/// Reads a request, or says what is wrong with it.
pub(super) fn read(request: &pb::PlanRequest) -> Result<Plan, String> {
    if request.services.len() > SERVICES_MAX {
        let count = request.services.len();
        return Err(format!("{count} services, at most {SERVICES_MAX} are planned at once"));
    }
    bounded("secrets", request.secrets.len())?;
    request.secrets.iter().try_for_each(|name| named("a secret", name))?;
    let mut names = BTreeSet::new();
    for service in &request.services {
        named("a service", &service.name)?;
        if !names.insert(&service.name) {
            return Err(format!("service {} is given twice", service.name));
        }
    }
    Ok(Plan {
        services: request.services.iter().map(service).collect::<Result<_, _>>()?,
        secrets: request.secrets.iter().cloned().collect(),
        prune: (!request.prune.is_empty()).then(|| request.prune.clone()),
    })
}

fn service(given: &pb::PlannedService) -> Result<Planned, String> {
    let of = |what: &str| format!("{what} of {}", given.name);
    bounded(&of("labels"), given.labels.len())?;
    bounded(&of("networks"), given.networks.len())?;
    bounded(&of("host ports"), given.host_ports.len())?;
    given.networks.iter().try_for_each(|name| named("a network", name))?;
    let mut labels = BTreeMap::new();
    for label in &given.labels {
        let Some(pb::label::Value::Text(text)) = &label.value else {
            return Err(format!("label {} of {} has no text", label.key, given.name));
        };
        if labels.insert(label.key.clone(), text.clone()).is_some() {
            return Err(format!("label {} of {} is given twice", label.key, given.name));
        }
    }
    let port = |number: u32| {
        u16::try_from(number).map_err(|_| format!("port {number} of {} is no port", given.name))
    };
    let host_port = |given: &pb::HostPort| {
        Ok(HostPort { target: port(given.target)?, published: port(given.published)? })
    };
    Ok(Planned {
        name: given.name.clone(),
        labels,
        networks: given.networks.iter().cloned().collect(),
        endpoint_mode: match given.endpoint_mode() {
            pb::EndpointMode::Vip => EndpointMode::Vip,
            pb::EndpointMode::Dnsrr => EndpointMode::Dnsrr,
        },
        host_ports: given.host_ports.iter().map(host_port).collect::<Result<_, String>>()?,
        scale: match &given.scale {
            Some(pb::planned_service::Scale::Replicated(replicas)) => Scale::Replicated(*replicas),
            Some(pb::planned_service::Scale::Global(pb::Global {})) => Scale::Global,
            Some(pb::planned_service::Scale::Job(pb::Job {})) => Scale::Job,
            None => return Err(format!("service {} has no scale", given.name)),
        },
    })
}

fn bounded(what: &str, count: usize) -> Result<(), String> {
    if count > PARTS_MAX {
        return Err(format!("{count} {what}, at most {PARTS_MAX} are taken"));
    }
    Ok(())
}

fn named(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let shown: String = name.chars().take(64).collect();
        return Err(format!("{shown:?} is no name of {what}"));
    }
    Ok(())
}

/// What the plan would change in `state`.
pub(super) fn plan(state: &State, plan: &Plan) -> pb::PlanResponse {
    let mut after = state.clone();
    planned::apply(&mut after, plan);
    let (had, has) = (state.problems(), after.problems());
    pb::PlanResponse {
        index: state.applied_index().0,
        routes: changes(state, &after),
        problems: beyond(&has, &had),
        solved: beyond(&had, &has),
        conflicts: conflicts(&after, plan),
    }
}

/// The problems that are not among the others, whatever their age.
fn beyond(problems: &[Problem], others: &[Problem]) -> Vec<pb::Problem> {
    fn said(one: &Problem) -> [&str; 4] {
        [&one.service, &one.label, &one.value, &one.reason]
    }
    let others: BTreeSet<_> = others.iter().map(said).collect();
    problems.iter().filter(|one| !others.contains(&said(one))).map(Into::into).collect()
}

/// Routes that differ, by service cluster, host and path.
pub(super) fn changes(before: &State, after: &State) -> Vec<pb::RouteChange> {
    let clusters: BTreeSet<_> =
        before.service_clusters().into_iter().chain(after.service_clusters()).collect();
    let mut changes = Vec::new();
    for cluster in clusters {
        let mut pairs = BTreeMap::<_, (Option<pb::Route>, Option<pb::Route>)>::new();
        for route in &before.snapshot(&cluster).routes {
            pairs.entry((route.host.clone(), route.path.clone())).or_default().0 =
                Some(shown(route.into()));
        }
        for route in &after.snapshot(&cluster).routes {
            pairs.entry((route.host.clone(), route.path.clone())).or_default().1 =
                Some(shown(route.into()));
        }
        for (before, after) in pairs.into_values().filter(|(before, after)| before != after) {
            let change = match (&before, &after) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            };
            changes.push(pb::RouteChange {
                service_cluster: cluster.to_string(),
                change: change.to_owned(),
                before,
                after,
            });
        }
    }
    changes
}

/// A route without the addresses that were made up for it.
fn shown(mut route: pb::Route) -> pb::Route {
    for upstream in route.services.iter_mut().flat_map(|service| &mut service.upstreams) {
        let address = upstream.address.parse::<SocketAddr>();
        if address.is_ok_and(|address| planned::is_made_up(address.ip())) {
            let state = std::mem::take(&mut upstream.state);
            *upstream = pb::Upstream { address: NEW.to_owned(), state, ..Default::default() };
        }
    }
    route
}

fn conflicts(after: &State, plan: &Plan) -> Vec<pb::Conflict> {
    let mut all = Vec::new();
    for service in after.services() {
        if !plan.services.iter().any(|planned| *planned.name == *service.name) {
            continue;
        }
        all.extend(after.kept_out(&service.id).into_iter().map(|route| pb::Conflict {
            service: service.name.to_string(),
            host: route.host.to_string(),
            path: route.path.to_string(),
            owner: route.owner.to_string(),
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str, labels: &[(&str, &str)], replicas: u64) -> pb::PlannedService {
        let label = |(label, value): &(&str, &str)| pb::Label {
            key: format!("com.docker.lb.{label}"),
            value: Some(pb::label::Value::Text((*value).to_owned())),
        };
        pb::PlannedService {
            name: name.to_owned(),
            labels: labels.iter().map(label).collect(),
            networks: vec!["web".to_owned()],
            scale: Some(pb::planned_service::Scale::Replicated(replicas)),
            ..pb::PlannedService::default()
        }
    }

    fn request(services: Vec<pb::PlannedService>) -> Plan {
        read(&pb::PlanRequest { services, ..pb::PlanRequest::default() }).expect("a plan")
    }

    /// A state in which these services run.
    fn running(services: Vec<pb::PlannedService>) -> State {
        let mut state = State::default();
        planned::apply(&mut state, &request(services));
        state
    }

    fn told(answer: &pb::PlanResponse) -> Vec<String> {
        let told = |change: &pb::RouteChange| {
            let route = change.after.as_ref().or(change.before.as_ref()).expect("one of them");
            let services = route.services.iter();
            let services: Vec<_> =
                services.map(|service| format!("{}={}", service.name, service.weight)).collect();
            format!("{} {}{} {}", change.change, route.host, route.path, services.join(" "))
        };
        answer.routes.iter().map(told).collect()
    }

    #[test]
    fn routes_are_added_changed_and_removed() {
        let shop =
            |hosts: &str, replicas| planned("shop", &[("hosts", hosts), ("port", "80")], replicas);
        let state = running(vec![shop("a.example,b.example", 1)]);
        let digest = state.digest();
        let canary = planned("canary", &[("hosts", "b.example"), ("port", "80")], 3);
        let answer = plan(&state, &request(vec![shop("b.example,c.example", 1), canary]));
        assert_eq!(
            told(&answer),
            [
                "removed a.example/ shop=10000",
                "changed b.example/ shop=2500 canary=7500",
                "added c.example/ shop=10000"
            ]
        );
        let changed = answer.routes[1].after.as_ref().expect("it is there after");
        let kept = &answer.routes[1].before.as_ref().expect("and before").services[0];
        assert_eq!(changed.services[1].upstreams.len(), 3);
        assert!(changed.services[1].upstreams.iter().all(|upstream| upstream.address == "new"));
        assert_eq!(kept.upstreams.len(), changed.services[0].upstreams.len());
        assert_eq!((answer.problems.len(), answer.conflicts.len()), (0, 0));
        assert_eq!(state.digest(), digest, "nothing has changed");
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let shop = || planned("shop", &[("hosts", "a.example"), ("port", "80")], 2);
        let answer = plan(&running(vec![shop()]), &request(vec![shop()]));
        assert_eq!(answer, pb::PlanResponse { index: 1, ..pb::PlanResponse::default() });
    }

    #[test]
    fn problems_and_conflicts_are_told_with_the_owner() {
        let owner =
            [("hosts", "a.example"), ("port", "80"), ("ssl_cert", "cert"), ("ssl_key", "key")];
        let state = running(vec![planned("owner", &owner, 1)]);
        let before = state.problems().len();
        let late = planned("late", &[("hosts", "a.example"), ("port", "80")], 1);
        let bad = planned("bad", &[("hosts", "b.example"), ("port", "http")], 1);
        let answer = plan(&state, &request(vec![late, bad]));
        assert_eq!(told(&answer), Vec::<String>::new());
        let conflict = &answer.conflicts[0];
        assert_eq!(
            [&*conflict.service, &*conflict.host, &*conflict.path, &*conflict.owner],
            ["late", "a.example", "/", "owner"]
        );
        let mut services: Vec<_> = answer.problems.iter().map(|one| &*one.service).collect();
        services.dedup();
        assert_eq!(services, ["bad", "late"], "the secrets were missed before");
        assert!(before > 0 && answer.problems[0].label == "com.docker.lb.port");
        // What was missing is made with the plan.
        let secrets = vec!["cert".to_owned(), "key".to_owned()];
        let made = pb::PlanRequest { secrets, ..pb::PlanRequest::default() };
        let answer = plan(&state, &read(&made).expect("a plan"));
        assert_eq!((answer.problems.len(), answer.solved.len()), (0, before));
    }

    #[test]
    fn a_request_that_cannot_be_is_refused_by_name() {
        let refused = |change: fn(&mut pb::PlannedService)| {
            let mut service = planned("shop", &[("port", "80")], 1);
            change(&mut service);
            read(&pb::PlanRequest { services: vec![service], ..Default::default() })
                .expect_err("no")
        };
        for (said, error) in [
            ("\"\" is no name of a service", refused(|s| s.name.clear())),
            ("is no name of a network", refused(|s| s.networks.push("a\nb".to_owned()))),
            ("shop has no scale", refused(|s| s.scale = None)),
            ("of shop has no text", refused(|s| s.labels[0].value = None)),
            ("is given twice", refused(|s| s.labels.push(s.labels[0].clone()))),
            (
                "port 70000 of shop is no port",
                refused(|s| s.host_ports.push(pb::HostPort { target: 70_000, published: 0 })),
            ),
        ] {
            assert!(error.contains(said), "{error}");
        }
        let twice = vec![planned("shop", &[], 1), planned("shop", &[], 1)];
        let twice = pb::PlanRequest { services: twice, ..Default::default() };
        assert_eq!(read(&twice), Err("service shop is given twice".to_owned()));
    }
}
