//! What all parts of a run share, and what is checked at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_jepsen::checks::Violation;
use dovetail_jepsen::checks::acknowledged::Acknowledged;
use dovetail_jepsen::checks::committed::Committed;
use dovetail_jepsen::checks::digests::Digests;
use dovetail_jepsen::checks::elections::Elections;
use dovetail_jepsen::checks::proxies::Proxies;
use dovetail_jepsen::checks::removals::Removals;
use dovetail_jepsen::checks::transfers::Transfers;

use dovetail_raft_store::Vote;

use super::docker::Swarm;
use super::member::Member;
use super::network::Net;
use super::plan::{Kind, Plan};
use super::trace::Trace;

/// Shared by every task of a run.
pub(crate) type Shared = Arc<World>;

/// The quorum's id.
pub(crate) const CLUSTER: &str = "c0ffee";

/// What was seen, for the checkers.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) elections: Elections,
    pub(crate) committed: Committed,
    pub(crate) digests: Digests,
    pub(crate) acknowledged: Acknowledged,
    pub(crate) proxies: Proxies,
    pub(crate) removals: Removals,
    pub(crate) transfers: Transfers,
}

/// One run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) trace: Trace,
    pub(crate) net: Net,
    pub(crate) swarm: Swarm,
    random: Mutex<fastrand::Rng>,
    members: Mutex<BTreeMap<u64, Arc<Member>>>,
    checks: Mutex<Checks>,
    counts: Mutex<BTreeMap<Kind, u64>>,
    violations: Mutex<Vec<Violation>>,
    /// Members that may have to be replaced: their disks were damaged.
    damaged: Mutex<BTreeSet<u64>>,
    /// Members that do not come back.
    lost: Mutex<BTreeSet<u64>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.plan.seed).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(plan: Plan, print: bool) -> Shared {
        let random = fastrand::Rng::with_seed(plan.seed ^ 0x5EED);
        Arc::new(Self {
            trace: Trace::new(print),
            net: Net::default(),
            swarm: Swarm::new(plan.seed),
            random: Mutex::new(random),
            members: Mutex::default(),
            checks: Mutex::default(),
            counts: Mutex::default(),
            violations: Mutex::default(),
            damaged: Mutex::default(),
            lost: Mutex::default(),
            plan,
        })
    }

    pub(crate) fn random(&self) -> MutexGuard<'_, fastrand::Rng> {
        lock(&self.random)
    }

    /// Waits a random number of milliseconds.
    pub(crate) async fn pause(&self, millis: impl std::ops::RangeBounds<u64>) {
        let millis = self.random().u64(millis);
        tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
    }

    pub(crate) fn checks(&self) -> MutexGuard<'_, Checks> {
        lock(&self.checks)
    }

    /// A fault took effect.
    pub(crate) fn count(&self, kind: Kind) {
        *lock(&self.counts).entry(kind).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<Kind, u64> {
        lock(&self.counts).clone()
    }

    pub(crate) fn add(&self, member: Arc<Member>) {
        lock(&self.members).insert(member.id, member);
    }

    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        lock(&self.members).values().cloned().collect()
    }

    /// A member told others of its vote.
    pub(crate) fn voted(&self, member: u64, vote: &Vote) {
        let disk = lock(&self.members).get(&member).map(|member| member.incarnation());
        if let Some(disk) = disk {
            let vote = (vote.leader_id.term, vote.leader_id.node_id);
            self.checks().elections.gave(&disk, vote);
        }
    }

    /// Records what a checker found.
    pub(crate) fn expect(&self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.violated(violation);
        }
    }

    pub(crate) fn violated(&self, violation: Violation) {
        // What follows on the first one tells less.
        let mut violations = lock(&self.violations);
        if violations.is_empty() {
            self.trace.note(format_args!("VIOLATION {violation}"));
            violations.push(violation);
        }
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        lock(&self.violations).clone()
    }

    pub(crate) fn is_violated(&self) -> bool {
        !lock(&self.violations).is_empty()
    }

    /// Whether one more disk may be damaged: a quorum must be left.
    pub(crate) fn may_damage(&self, member: u64) -> bool {
        let mut damaged = lock(&self.damaged);
        let most = usize::try_from((self.plan.members - 1) / 2).unwrap_or(0);
        if damaged.contains(&member) {
            return true;
        }
        damaged.len() < most && damaged.insert(member)
    }

    pub(crate) fn is_damaged(&self, member: u64) -> bool {
        lock(&self.damaged).contains(&member)
    }

    pub(crate) fn lose(&self, member: u64) {
        self.trace.note(format_args!("member {member} is lost"));
        lock(&self.lost).insert(member);
    }

    pub(crate) fn is_lost(&self, member: u64) -> bool {
        lock(&self.lost).contains(&member)
    }

    /// The members that must be there after all is healed.
    pub(crate) fn survivors(&self) -> Vec<Arc<Member>> {
        self.members().into_iter().filter(|member| !self.is_lost(member.id)).collect()
    }
}
