//! What an operator orders, or a member on the cluster's behalf.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::canary::{Evidence, Plan};
use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::entry::{ClusterConfig, LogIndex};
use crate::intent::Scope;
use crate::names::{ServiceCluster, SwarmId};
use crate::rules::RuleSet;
use crate::snapshot::RouteKey;

/// A command. Whether it can be carried out is found out when it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Puts configuration in force for all members and proxies.
    ApplyConfig(ClusterConfig),
    /// A remark for the audit; it changes no route.
    Annotate { text: Arc<str> },
    /// Takes another swarm's listing as the new baseline.
    AcceptSwarm { swarm: SwarmId },
    /// Gives the services of a route fixed shares, until they are cleared.
    SetCanary {
        route: RouteKey,
        shares: Vec<Share>,
        /// The entry whose order is in force on the route, or 0 when nobody's is: refused
        /// if it is another. `None` is whatever is there.
        expected: Option<LogIndex>,
    },
    /// Returns a route to weights by upstreams.
    ClearCanary { route: RouteKey },
    /// Gives one service all of a route, until it is cleared.
    PromoteCanary {
        route: RouteKey,
        /// By name; `None` is the target of the canary that runs there.
        service: Option<Arc<str>>,
    },
    /// Gives routes back the intents that they had after an earlier entry, until released.
    RollbackRoutes {
        service_cluster: ServiceCluster,
        /// The entry after which the routes were as they are to be.
        to: LogIndex,
        scope: Scope,
        /// In milliseconds of leader time from here; `None` is until it is released.
        for_ms: Option<u64>,
    },
    /// Ends rollbacks: routes are again what Swarm says, with equal weights.
    ReleaseRollback { service_cluster: ServiceCluster, scope: Scope },
    /// Moves a route from one service to another, step by step, as long as its figures
    /// allow it.
    StartCanary {
        route: RouteKey,
        /// By name, both.
        from: Arc<str>,
        to: Arc<str>,
        plan: Plan,
    },
    /// Keeps the step in force, whatever its figures say.
    PauseCanary { route: RouteKey },
    /// Measures the step anew.
    ResumeCanary { route: RouteKey },
    /// The next step: the leader's own, with what it was judged by.
    AdvanceCanary {
        route: RouteKey,
        /// The step to be, counted from 1; one more than there are finishes the run.
        step: u32,
        evidence: Evidence,
    },
    /// Returns to the weights before the start: an operator's order, or the leader's with
    /// what demands it.
    AbortCanary { route: RouteKey, evidence: Option<Evidence> },
    /// Takes upstreams out of the rotation.
    DrainUpstream {
        target: DrainTarget,
        /// For so many milliseconds of leader time; `None` is until it is undrained.
        for_ms: Option<u64>,
        /// Even if it leaves a route without an active upstream.
        force: bool,
    },
    /// Lifts an operator's drain, and no reason of Swarm's.
    UndrainUpstream { target: DrainTarget },
    /// Says whose order a change of members was; it changes no route.
    ChangeMembers(MembersChanged),
    /// From here on another rule set says what facts and orders mean.
    ActivateRules { rules: RuleSet },
    /// A command that this rule set does not know: answered, never applied.
    Unknown { name: Arc<str> },
}

/// A change of members, as the log tells it: Raft holds the members themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersChanged {
    pub change: MemberChange,
    /// Slots.
    pub members: Vec<u64>,
    /// Of a member that is added or replaced; empty keeps the known one.
    pub address: Arc<str>,
}

/// What becomes of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    Add,
    Promote,
    Remove,
    Replace,
    TransferLeader,
}

/// What part of a route's requests a service gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// By name, so that a redeployed stack keeps its share.
    pub service: Arc<str>,
    /// In basis points; those of a route sum to [`crate::snapshot::WEIGHT_SUM`].
    pub weight: u16,
}

impl Command {
    /// The route whose shares it orders.
    pub fn shares_of(&self) -> Option<&RouteKey> {
        match self {
            Self::SetCanary { route, .. }
            | Self::ClearCanary { route }
            | Self::PromoteCanary { route, .. }
            | Self::StartCanary { route, .. }
            | Self::PauseCanary { route }
            | Self::ResumeCanary { route }
            | Self::AdvanceCanary { route, .. }
            | Self::AbortCanary { route, .. } => Some(route),
            Self::ApplyConfig(_)
            | Self::Annotate { .. }
            | Self::AcceptSwarm { .. }
            | Self::RollbackRoutes { .. }
            | Self::ReleaseRollback { .. }
            | Self::DrainUpstream { .. }
            | Self::UndrainUpstream { .. }
            | Self::ChangeMembers(_)
            | Self::ActivateRules { .. }
            | Self::Unknown { .. } => None,
        }
    }
}

/// What a drain is aimed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrainTarget {
    /// The tasks that are reached there now; never a virtual address.
    Address(SocketAddr),
    /// By name.
    Service(Arc<str>),
    /// By name or id: all tasks on it, those to come too.
    SwarmNode(Arc<str>),
}

impl fmt::Display for DrainTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Service(name) => write!(f, "service {name}"),
            Self::SwarmNode(name) => write!(f, "swarm node {name}"),
        }
    }
}

crate::codec::fields! {
    Share { service weight }
    MembersChanged { change members address }
}

impl Canonical for MemberChange {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Add => 0,
            Self::Promote => 1,
            Self::Remove => 2,
            Self::Replace => 3,
            Self::TransferLeader => 4,
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("member change")? {
            0 => Ok(Self::Add),
            1 => Ok(Self::Promote),
            2 => Ok(Self::Remove),
            3 => Ok(Self::Replace),
            4 => Ok(Self::TransferLeader),
            other => Err(from.invalid("member change", format!("has no variant {other}"))),
        }
    }
}

impl Canonical for DrainTarget {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Address(address) => {
                out.push(0);
                address.write(out);
            }
            Self::Service(name) => {
                out.push(1);
                name.write(out);
            }
            Self::SwarmNode(name) => {
                out.push(2);
                name.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("target of a drain")? {
            0 => Ok(Self::Address(from.read()?)),
            1 => Ok(Self::Service(from.read()?)),
            2 => Ok(Self::SwarmNode(from.read()?)),
            other => Err(from.invalid("target of a drain", format!("has no variant {other}"))),
        }
    }
}

impl Canonical for Command {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::ApplyConfig(config) => {
                out.push(0);
                config.write(out);
            }
            Self::Annotate { text } => {
                out.push(1);
                text.write(out);
            }
            Self::AcceptSwarm { swarm } => {
                out.push(2);
                swarm.write(out);
            }
            Self::Unknown { name } => {
                out.push(3);
                name.write(out);
            }
            // Request ids are remembered with a digest of these bytes, so the older form stays.
            Self::SetCanary { route, shares, expected: None } => {
                out.push(4);
                route.write(out);
                shares.write(out);
            }
            Self::SetCanary { route, shares, expected: Some(expected) } => {
                out.push(26);
                route.write(out);
                shares.write(out);
                expected.write(out);
            }
            Self::ClearCanary { route } => {
                out.push(5);
                route.write(out);
            }
            Self::PromoteCanary { route, service } => {
                out.push(6);
                route.write(out);
                service.write(out);
            }
            Self::RollbackRoutes { service_cluster, to, scope, for_ms } => {
                out.push(13);
                service_cluster.write(out);
                to.write(out);
                scope.write(out);
                for_ms.write(out);
            }
            Self::ReleaseRollback { service_cluster, scope } => {
                out.push(14);
                service_cluster.write(out);
                scope.write(out);
            }
            Self::StartCanary { route, from, to, plan } => {
                out.push(9);
                route.write(out);
                from.write(out);
                to.write(out);
                plan.write(out);
            }
            Self::PauseCanary { route } => {
                out.push(10);
                route.write(out);
            }
            Self::ResumeCanary { route } => {
                out.push(11);
                route.write(out);
            }
            Self::AdvanceCanary { route, step, evidence } => {
                out.push(12);
                route.write(out);
                step.write(out);
                evidence.write(out);
            }
            Self::AbortCanary { route, evidence } => {
                out.push(15);
                route.write(out);
                evidence.write(out);
            }
            Self::DrainUpstream { target, for_ms, force } => {
                out.push(7);
                target.write(out);
                for_ms.write(out);
                force.write(out);
            }
            Self::UndrainUpstream { target } => {
                out.push(8);
                target.write(out);
            }
            Self::ChangeMembers(changed) => {
                out.push(24);
                changed.write(out);
            }
            Self::ActivateRules { rules } => {
                out.push(25);
                rules.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("command")? {
            0 => Ok(Self::ApplyConfig(from.read()?)),
            1 => Ok(Self::Annotate { text: from.read()? }),
            2 => Ok(Self::AcceptSwarm { swarm: from.read()? }),
            3 => Ok(Self::Unknown { name: from.read()? }),
            4 => Ok(Self::SetCanary { route: from.read()?, shares: from.read()?, expected: None }),
            26 => Ok(Self::SetCanary {
                route: from.read()?,
                shares: from.read()?,
                expected: Some(from.read()?),
            }),
            5 => Ok(Self::ClearCanary { route: from.read()? }),
            6 => Ok(Self::PromoteCanary { route: from.read()?, service: from.read()? }),
            13 => Ok(Self::RollbackRoutes {
                service_cluster: from.read()?,
                to: from.read()?,
                scope: from.read()?,
                for_ms: from.read()?,
            }),
            14 => Ok(Self::ReleaseRollback { service_cluster: from.read()?, scope: from.read()? }),
            7 => Ok(Self::DrainUpstream {
                target: from.read()?,
                for_ms: from.read()?,
                force: from.read()?,
            }),
            8 => Ok(Self::UndrainUpstream { target: from.read()? }),
            9 => Ok(Self::StartCanary {
                route: from.read()?,
                from: from.read()?,
                to: from.read()?,
                plan: from.read()?,
            }),
            10 => Ok(Self::PauseCanary { route: from.read()? }),
            11 => Ok(Self::ResumeCanary { route: from.read()? }),
            12 => Ok(Self::AdvanceCanary {
                route: from.read()?,
                step: from.read()?,
                evidence: from.read()?,
            }),
            15 => Ok(Self::AbortCanary { route: from.read()?, evidence: from.read()? }),
            24 => Ok(Self::ChangeMembers(from.read()?)),
            25 => Ok(Self::ActivateRules { rules: from.read()? }),
            other => Err(from.invalid("command", format!("has no variant {other}"))),
        }
    }
}
