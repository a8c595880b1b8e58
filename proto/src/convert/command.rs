//! Commands as the log carries them.

use dovetail_routing::Command;
use dovetail_routing::LogIndex;
use dovetail_routing::command::Share;
use dovetail_routing::intent::Scope;
use dovetail_routing::names::{ContextRoot, InvalidName, ServiceCluster, SwarmId};
use dovetail_routing::snapshot::{RouteHost, RouteKey};

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
            Command::SetCanary { route, shares } => C::SetCanary(pb::SetCanary {
                route: Some(route.into()),
                shares: shares.iter().map(pb::Share::from).collect(),
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
            Some(C::SetCanary(pb::SetCanary { route, shares })) => {
                Ok(Self::SetCanary { route: route_key(route)?, shares: each(shares)? })
            }
            Some(C::ClearCanary(pb::ClearCanary { route })) => {
                Ok(Self::ClearCanary { route: route_key(route)? })
            }
            Some(C::PromoteCanary(pb::PromoteCanary { route, service })) => {
                let service = (!service.is_empty()).then(|| service.into());
                Ok(Self::PromoteCanary { route: route_key(route)?, service })
            }
            Some(C::StartCanary(_)) => unknown("StartCanary"),
            Some(C::PauseCanary(_)) => unknown("PauseCanary"),
            Some(C::ResumeCanary(_)) => unknown("ResumeCanary"),
            Some(C::AbortCanary(_)) => unknown("AbortCanary"),
            Some(C::DrainUpstream(_)) => unknown("DrainUpstream"),
            Some(C::UndrainUpstream(_)) => unknown("UndrainUpstream"),
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
            Some(C::ActivateRules(_)) => unknown("ActivateRules"),
            None => unknown("of a newer build"),
        }
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

/// A part of the whole; whether it is at most the whole is found out when it is applied.
fn basis_points(field: &'static str, given: u32) -> Result<u16, InvalidEntry> {
    u16::try_from(given).map_err(|_| invalid(field, given, "is above 10000"))
}
