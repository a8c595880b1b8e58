//! What a seed means: how many members, which faults, for how long.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use dovetail_raft_store::sim::{Fault, Sabotage as StoreSabotage};

/// A fault that a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Kill,
    PowerCut,
    /// The power of all members goes at once.
    Blackout,
    Partition,
    OneWay,
    Loss,
    Duplicate,
    SlowLinks,
    Clog,
    ClockJump,
    Transfer,
    Disk(Fault),
    DockerDropsEvents,
    DockerIsStale,
    DockerFails,
    DockerIsRestored,
    ProxyRestart,
}

impl Kind {
    pub(crate) const ALL: [Self; 24] = [
        Self::Kill,
        Self::PowerCut,
        Self::Blackout,
        Self::Partition,
        Self::OneWay,
        Self::Loss,
        Self::Duplicate,
        Self::SlowLinks,
        Self::Clog,
        Self::ClockJump,
        Self::Transfer,
        Self::Disk(Fault::WriteFails),
        Self::Disk(Fault::SyncFails),
        Self::Disk(Fault::Full),
        Self::Disk(Fault::FileFails),
        Self::Disk(Fault::Slow),
        Self::Disk(Fault::RowFlips),
        Self::Disk(Fault::SnapshotFlips),
        Self::Disk(Fault::SuffixLost),
        Self::DockerDropsEvents,
        Self::DockerIsStale,
        Self::DockerFails,
        Self::DockerIsRestored,
        Self::ProxyRestart,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerCut => "power-cut",
            Self::Blackout => "blackout",
            Self::Partition => "partition",
            Self::OneWay => "one-way-cut",
            Self::Loss => "loss",
            Self::Duplicate => "duplicate",
            Self::SlowLinks => "slow-links",
            Self::Clog => "clog",
            Self::ClockJump => "clock-jump",
            Self::Transfer => "leader-transfer",
            Self::Disk(Fault::WriteFails) => "disk-write-error",
            Self::Disk(Fault::SyncFails) => "disk-sync-error",
            Self::Disk(Fault::Full) => "disk-full",
            Self::Disk(Fault::FileFails) => "disk-torn-file",
            Self::Disk(Fault::Slow) => "disk-slow",
            Self::Disk(Fault::RowFlips) => "disk-row-flip",
            Self::Disk(Fault::SnapshotFlips) => "disk-snapshot-flip",
            Self::Disk(Fault::SuffixLost) => "disk-suffix-lost",
            Self::DockerDropsEvents => "docker-drops-events",
            Self::DockerIsStale => "docker-stale",
            Self::DockerFails => "docker-error",
            Self::DockerIsRestored => "docker-restored",
            Self::ProxyRestart => "proxy-restart",
        }
    }

    /// The member may have to be replaced afterwards.
    pub(crate) fn is_destructive(self) -> bool {
        matches!(self, Self::Disk(Fault::RowFlips | Fault::SuffixLost | Fault::SnapshotFlips))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("{name:?} is no fault; there are {}", names.join(", "))
        })
    }
}

/// A mistake that is built in on purpose, which a run has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    Store(StoreSabotage),
    /// A read is answered without asking the quorum.
    UnconfirmedRead,
    /// An object is removed as soon as one listing lacks it.
    FirstAbsence,
    /// An object is replaced by an older version of it.
    LowerVersion,
    /// A proxy takes whatever it is sent.
    OlderRevision,
    /// A client asks again under another request id.
    NewRequestId,
    /// A client is answered before a quorum has the entry.
    AckWithoutQuorum,
    /// A leader that is started again goes on in its term.
    LeaderRestored,
    /// Docker's events are taken for all that happened; it is listed once.
    EventsAlone,
    /// A member whose disk was wiped goes on as the node that it was.
    ReusedNode,
    /// A proxy says that it has an update whose content it missed.
    LostDelta,
    /// A member that lacks entries is handed the lead.
    LaggingHeir,
}

impl Sabotage {
    pub(crate) const ALL: [(&'static str, Self); 22] = [
        ("ack-before-fsync", Self::Store(StoreSabotage::AckBeforeSync)),
        ("skip-vote-fsync", Self::Store(StoreSabotage::VoteUnsynced)),
        ("drop-last-entry", Self::Store(StoreSabotage::DropLastEntry)),
        ("snapshot-without-members", Self::Store(StoreSabotage::SnapshotWithoutMembers)),
        ("purge-before-ledger", Self::Store(StoreSabotage::PurgeBeforeLedger)),
        ("unconfirmed-read", Self::UnconfirmedRead),
        ("delete-on-first-absence", Self::FirstAbsence),
        ("accept-lower-version", Self::LowerVersion),
        ("wall-clock-in-reducer", Self::Store(StoreSabotage::WallClock)),
        ("proxy-takes-older", Self::OlderRevision),
        ("retry-without-request-id", Self::NewRequestId),
        ("ack-without-quorum", Self::AckWithoutQuorum),
        ("leader-restored", Self::LeaderRestored),
        ("vote-fsync-after-append", Self::Store(StoreSabotage::VoteAfterAppend)),
        ("two-write-ahead-logs", Self::Store(StoreSabotage::TwoLogs)),
        ("point-in-time-recovery", Self::Store(StoreSabotage::PointInTime)),
        ("hash-map-in-reducer", Self::Store(StoreSabotage::HashMapOrder)),
        ("last-applied-lags", Self::Store(StoreSabotage::AppliedLags)),
        ("event-only-ingest", Self::EventsAlone),
        ("reuse-node-id", Self::ReusedNode),
        ("lost-delta", Self::LostDelta),
        ("transfer-to-lagging", Self::LaggingHeir),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, sabotage)| *sabotage).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("{name:?} is no sabotage; there are {}", names.join(", "))
        })
    }
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) members: u64,
    pub(crate) clients: u64,
    pub(crate) proxies: u64,
    /// How long faults happen, in virtual time.
    pub(crate) chaos: Duration,
    pub(crate) faults: BTreeSet<Kind>,
    pub(crate) snapshot_entries: u64,
    pub(crate) kept_entries: u64,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Plan {
    /// What `seed` alone decides.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let members = if random.u8(0..4) == 0 { 5 } else { 3 };
        let share = random.f64();
        let faults = Kind::ALL.into_iter().filter(|_| random.f64() < share).collect();
        Self {
            seed,
            members,
            clients: random.u64(1..=4),
            proxies: random.u64(1..=3),
            chaos: Duration::from_millis(random.u64(5_000..20_000)),
            faults,
            snapshot_entries: random.u64(10..200),
            kept_entries: random.u64(0..60),
            sabotage: None,
        }
    }

    pub(crate) fn is_sabotaged(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// Arguments that make this plan again out of its seed.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--seed={}", self.seed)];
        let of_seed = Self::of(self.seed);
        let without: Vec<_> =
            of_seed.faults.difference(&self.faults).map(|kind| kind.name()).collect();
        if !without.is_empty() {
            arguments.push(format!("--without={}", without.join(",")));
        }
        if self.chaos != of_seed.chaos {
            arguments.push(format!("--chaos-ms={}", self.chaos.as_millis()));
        }
        if self.clients != of_seed.clients {
            arguments.push(format!("--clients={}", self.clients));
        }
        if let Some(sabotage) = self.sabotage {
            arguments.push(format!("--sabotage={}", sabotage.name()));
        }
        arguments
    }
}
