//! Commands as the log carries them.

use dovetail_routing::canary::{Evidence, Plan, ProxyFigures};
use dovetail_routing::command::{DrainTarget, MemberChange, MembersChanged, Share};
use dovetail_routing::intent::Scope;
use dovetail_routing::latency::{BUCKETS, Latencies};
use dovetail_routing::names::{ContextRoot, InvalidName, ServiceCluster, SwarmId};
use dovetail_routing::snapshot::{RouteHost, RouteKey};
use dovetail_routing::{Command, LogIndex, RuleSet};

use super::{InvalidEntry, each, invalid};
use crate::v1 as pb;

impl From<&Command> for pb::Command {
    fn from(command: &Command) -> Self {
        use pb::command::Command as C;
        let command = match command {
            Command::ApplyConfig(config) => C::ApplyConfig(config.into()),
            Command::AcceptSwarm { swarm } => {
                C::AcceptSwarm(pb::AcceptSwarm { swarm: swarm.to_string() })
            }
            Command::Annotate { text } => C::Annotate(pb::Annotate { text: text.to_string() }),
            Command::SetCanary { route, shares, expected } => C::SetCanary(pb::SetCanary {
                route: Some(route.into()),
                shares: shares.iter().map(pb::Share::from).collect(),
                expected_index: expected.map(|index| index.0),
            }),
            Command::ClearCanary { route } => {
                C::ClearCanary(pb::ClearCanary { route: Some(route.into()) })
            }
            Command::PromoteCanary { route, service } => C::PromoteCanary(pb::PromoteCanary {
                route: Some(route.into()),
                service: service.as_deref().unwrap_or_default().into(),
            }),
            Command::RollbackRoutes { service_cluster, to, scope, for_ms } => {
                let (host, service) = names_of(scope);
                C::RollbackRoutes(pb::RollbackRoutes {
                    to: to.0,
                    host,
                    service,
                    for_ms: *for_ms,
                    service_cluster: service_cluster.to_string(),
                })
            }
            Command::ReleaseRollback { service_cluster, scope } => {
                let (host, service) = names_of(scope);
                let service_cluster = service_cluster.to_string();
                C::ReleaseRollback(pb::ReleaseRollback { service_cluster, host, service })
            }
            Command::StartCanary { route, from, to, plan } => C::StartCanary(pb::StartCanary {
                route: Some(route.into()),
                from: from.to_string(),
                to: to.to_string(),
                steps: plan.steps.iter().copied().map(u32::from).collect(),
                interval_ms: plan.interval_ms,
                max_error_rate: plan.max_error_rate.map(u32::from),
                max_p99_ms: plan.max_p99_ms,
                min_requests: plan.min_requests,
            }),
            Command::PauseCanary { route } => {
                C::PauseCanary(pb::PauseCanary { route: Some(route.into()) })
            }
            Command::ResumeCanary { route } => {
                C::ResumeCanary(pb::ResumeCanary { route: Some(route.into()) })
            }
            Command::AdvanceCanary { route, step, evidence } => {
                C::AdvanceCanary(pb::AdvanceCanary {
                    route: Some(route.into()),
                    step: *step,
                    evidence: Some(evidence.into()),
                })
            }
            Command::AbortCanary { route, evidence } => C::AbortCanary(pb::AbortCanary {
                route: Some(route.into()),
                evidence: evidence.as_ref().map(pb::Evidence::from),
            }),
            Command::DrainUpstream { target, for_ms, force } => {
                let target = Some(target.into());
                C::DrainUpstream(pb::DrainUpstream { target, for_ms: *for_ms, force: *force })
            }
            Command::UndrainUpstream { target } => {
                C::UndrainUpstream(pb::UndrainUpstream { target: Some(target.into()) })
            }
            Command::ChangeMembers(changed) => C::ChangeMembers(changed.into()),
            Command::ActivateRules { rules } => {
                C::ActivateRules(pb::ActivateRules { rules: rules.number() })
            }
            // Only its name was kept, so it cannot be written again.
            Command::Unknown { .. } => return Self { command: None },
        };
        Self { command: Some(command) }
    }
}

impl TryFrom<pb::Command> for Command {
    type Error = InvalidEntry;

    fn try_from(command: pb::Command) -> Result<Self, InvalidEntry> {
        use pb::command::Command as C;
        let unknown = |name: &str| Ok(Self::Unknown { name: name.into() });
        match command.command {
            Some(C::ApplyConfig(config)) => Ok(Self::ApplyConfig(config.try_into()?)),
            Some(C::AcceptSwarm(pb::AcceptSwarm { swarm })) => {
                Ok(Self::AcceptSwarm { swarm: SwarmId(swarm.into()) })
            }
            Some(C::Annotate(pb::Annotate { text })) => Ok(Self::Annotate { text: text.into() }),
            Some(C::SetCanary(pb::SetCanary { route, shares, expected_index })) => {
                Ok(Self::SetCanary {
                    route: route_key(route)?,
                    shares: each(shares)?,
                    expected: expected_index.map(LogIndex),
                })
            }
            Some(C::ClearCanary(pb::ClearCanary { route })) => {
                Ok(Self::ClearCanary { route: route_key(route)? })
            }
            Some(C::PromoteCanary(pb::PromoteCanary { route, service })) => {
                let service = (!service.is_empty()).then(|| service.into());
                Ok(Self::PromoteCanary { route: route_key(route)?, service })
            }
            Some(C::StartCanary(start)) => start_canary(start),
            Some(C::PauseCanary(pb::PauseCanary { route })) => {
                Ok(Self::PauseCanary { route: route_key(route)? })
            }
            Some(C::ResumeCanary(pb::ResumeCanary { route })) => {
                Ok(Self::ResumeCanary { route: route_key(route)? })
            }
            Some(C::AdvanceCanary(pb::AdvanceCanary { route, step, evidence })) => {
                let evidence = evidence.ok_or(InvalidEntry::Missing { field: "evidence" })?;
                Ok(Self::AdvanceCanary {
                    route: route_key(route)?,
                    step,
                    evidence: evidence.try_into()?,
                })
            }
            Some(C::AbortCanary(pb::AbortCanary { route, evidence })) => {
                let evidence = evidence.map(Evidence::try_from).transpose()?;
                Ok(Self::AbortCanary { route: route_key(route)?, evidence })
            }
            Some(C::DrainUpstream(pb::DrainUpstream { target, for_ms, force })) => {
                Ok(Self::DrainUpstream { target: drain_target(target)?, for_ms, force })
            }
            Some(C::UndrainUpstream(pb::UndrainUpstream { target })) => {
                Ok(Self::UndrainUpstream { target: drain_target(target)? })
            }
            Some(C::ChangeMembers(changed)) => Ok(Self::ChangeMembers(changed.try_into()?)),
            Some(C::RollbackRoutes(rollback)) => Ok(Self::RollbackRoutes {
                service_cluster: service_cluster(&rollback.service_cluster)?,
                to: LogIndex(rollback.to),
                scope: scope(&rollback.host, rollback.service)?,
                for_ms: rollback.for_ms,
            }),
            Some(C::ReleaseRollback(release)) => Ok(Self::ReleaseRollback {
                service_cluster: service_cluster(&release.service_cluster)?,
                scope: scope(&release.host, release.service)?,
            }),
            Some(C::ActivateRules(pb::ActivateRules { rules })) => {
                let known = RuleSet::try_from(rules);
                let rules = known.map_err(|error| invalid("rules", rules, error))?;
                Ok(Self::ActivateRules { rules })
            }
            None => unknown("of a newer build"),
        }
    }
}

impl From<&MembersChanged> for pb::ChangeMembers {
    fn from(changed: &MembersChanged) -> Self {
        let change = match changed.change {
            MemberChange::Add => pb::MemberChange::Add,
            MemberChange::Promote => pb::MemberChange::Promote,
            MemberChange::Remove => pb::MemberChange::Remove,
            MemberChange::Replace => pb::MemberChange::Replace,
            MemberChange::TransferLeader => pb::MemberChange::TransferLeader,
        };
        Self {
            change: change.into(),
            members: changed.members.clone(),
            address: changed.address.to_string(),
        }
    }
}

impl TryFrom<pb::ChangeMembers> for MembersChanged {
    type Error = InvalidEntry;

    fn try_from(changed: pb::ChangeMembers) -> Result<Self, InvalidEntry> {
        let change = match pb::MemberChange::try_from(changed.change) {
            Ok(pb::MemberChange::Add) => MemberChange::Add,
            Ok(pb::MemberChange::Promote) => MemberChange::Promote,
            Ok(pb::MemberChange::Remove) => MemberChange::Remove,
            Ok(pb::MemberChange::Replace) => MemberChange::Replace,
            Ok(pb::MemberChange::TransferLeader) => MemberChange::TransferLeader,
            Ok(pb::MemberChange::Unspecified) | Err(_) => {
                return Err(invalid("members.change", changed.change, "is no known change"));
            }
        };
        Ok(Self { change, members: changed.members, address: changed.address.into() })
    }
}

impl From<&RouteKey> for pb::RouteRef {
    fn from(route: &RouteKey) -> Self {
        Self {
            service_cluster: route.service_cluster.to_string(),
            host: route.host.to_string(),
            path: route.path.to_string(),
        }
    }
}

impl TryFrom<pb::RouteRef> for RouteKey {
    type Error = InvalidEntry;

    fn try_from(route: pb::RouteRef) -> Result<Self, InvalidEntry> {
        let pb::RouteRef { service_cluster, host, path } = route;
        let host = route_host("route.host", &host)?;
        let path = match path.as_str() {
            "" => ContextRoot::root(),
            path => path
                .parse()
                .map_err(|error: InvalidName| invalid("route.path", path, error.reason()))?,
        };
        let service_cluster = service_cluster.parse().map_err(|error: InvalidName| {
            invalid("route.service_cluster", &service_cluster, error.reason())
        })?;
        Ok(Self { service_cluster, host, path })
    }
}

fn route_host(field: &'static str, given: &str) -> Result<RouteHost, InvalidEntry> {
    RouteHost::from_printed(given).map_err(|error| invalid(field, given, error.reason()))
}

fn service_cluster(given: &str) -> Result<ServiceCluster, InvalidEntry> {
    given
        .parse()
        .map_err(|error: InvalidName| invalid("command.service_cluster", given, error.reason()))
}

/// A scope names nothing by an empty text.
fn scope(host: &str, service: String) -> Result<Scope, InvalidEntry> {
    let host = (!host.is_empty()).then(|| route_host("command.host", host)).transpose()?;
    Ok(Scope { host, service: (!service.is_empty()).then(|| service.into()) })
}

fn names_of(scope: &Scope) -> (String, String) {
    let host = scope.host.as_ref().map(ToString::to_string);
    (host.unwrap_or_default(), scope.service.as_deref().unwrap_or_default().to_owned())
}

fn route_key(route: Option<pb::RouteRef>) -> Result<RouteKey, InvalidEntry> {
    route.ok_or(InvalidEntry::Missing { field: "command.route" })?.try_into()
}

impl From<&Share> for pb::Share {
    fn from(share: &Share) -> Self {
        Self { service: share.service.to_string(), weight: share.weight.into() }
    }
}

impl TryFrom<pb::Share> for Share {
    type Error = InvalidEntry;

    fn try_from(share: pb::Share) -> Result<Self, InvalidEntry> {
        let weight = basis_points("share.weight", share.weight)?;
        Ok(Self { service: share.service.into(), weight })
    }
}

fn start_canary(start: pb::StartCanary) -> Result<Command, InvalidEntry> {
    let steps = start.steps.into_iter().map(|step| basis_points("steps", step));
    let max_error_rate = start.max_error_rate.map(|rate| basis_points("max_error_rate", rate));
    Ok(Command::StartCanary {
        route: route_key(start.route)?,
        from: start.from.into(),
        to: start.to.into(),
        plan: Plan {
            steps: steps.collect::<Result<_, _>>()?,
            interval_ms: start.interval_ms,
            max_error_rate: max_error_rate.transpose()?,
            max_p99_ms: start.max_p99_ms,
            min_requests: start.min_requests,
        },
    })
}

impl From<&Evidence> for pb::Evidence {
    fn from(evidence: &Evidence) -> Self {
        Self {
            run: evidence.run.0,
            step: evidence.step,
            window_ms: evidence.window_ms,
            proxies: evidence.proxies.iter().map(pb::ProxyFigures::from).collect(),
        }
    }
}

impl TryFrom<pb::Evidence> for Evidence {
    type Error = InvalidEntry;

    fn try_from(evidence: pb::Evidence) -> Result<Self, InvalidEntry> {
        Ok(Self {
            run: LogIndex(evidence.run),
            step: evidence.step,
            window_ms: evidence.window_ms,
            proxies: each(evidence.proxies)?,
        })
    }
}

impl From<&ProxyFigures> for pb::ProxyFigures {
    fn from(figures: &ProxyFigures) -> Self {
        let bucket =
            |(bucket, count): (u16, u64)| pb::LatencyBucket { bucket: bucket.into(), count };
        Self {
            proxy: figures.proxy.to_string(),
            requests: figures.requests,
            errors: figures.errors,
            latencies: figures.latencies.counts().map(bucket).collect(),
            missing: figures.missing,
        }
    }
}

impl TryFrom<pb::ProxyFigures> for ProxyFigures {
    type Error = InvalidEntry;

    fn try_from(figures: pb::ProxyFigures) -> Result<Self, InvalidEntry> {
        let pb::ProxyFigures { proxy, requests, errors, latencies, missing } = figures;
        let count = |one: pb::LatencyBucket| match u16::try_from(one.bucket) {
            Ok(bucket) if bucket < BUCKETS => Ok((bucket, one.count)),
            _ => Err(invalid("latencies.bucket", one.bucket, "is none that this build knows")),
        };
        let counts: Vec<_> = latencies.into_iter().map(count).collect::<Result<_, _>>()?;
        let latencies = Latencies::new(counts);
        Ok(Self { proxy: proxy.into(), requests, errors, latencies, missing })
    }
}

impl From<&DrainTarget> for pb::DrainTarget {
    fn from(target: &DrainTarget) -> Self {
        use pb::drain_target::Target as T;
        let target = match target {
            DrainTarget::Address(address) => T::Address(address.to_string()),
            DrainTarget::Service(name) => T::Service(name.to_string()),
            DrainTarget::SwarmNode(name) => T::SwarmNode(name.to_string()),
        };
        Self { target: Some(target) }
    }
}

impl TryFrom<pb::DrainTarget> for DrainTarget {
    type Error = InvalidEntry;

    fn try_from(target: pb::DrainTarget) -> Result<Self, InvalidEntry> {
        use pb::drain_target::Target as T;
        match target.target {
            Some(T::Address(given)) => {
                let address = given.parse();
                let reason = "must be IP:PORT, as dovetail routes prints it";
                let address = address.map_err(|_| invalid("target.address", given, reason))?;
                Ok(Self::Address(address))
            }
            Some(T::Service(name)) => Ok(Self::Service(name.into())),
            Some(T::SwarmNode(name)) => Ok(Self::SwarmNode(name.into())),
            None => Err(InvalidEntry::Missing { field: "target" }),
        }
    }
}

fn drain_target(target: Option<pb::DrainTarget>) -> Result<DrainTarget, InvalidEntry> {
    target.ok_or(InvalidEntry::Missing { field: "command.target" })?.try_into()
}

/// A part of the whole; whether it is at most the whole is found out when it is applied.
fn basis_points(field: &'static str, given: u32) -> Result<u16, InvalidEntry> {
    u16::try_from(given).map_err(|_| invalid(field, given, "is above 10000"))
}
