//! A member: its disk, its process, and what a supervisor does when it ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_control::checkpoint::{self, Checkpointer};
use dovetail_control::fleet::Fleet;
use dovetail_control::ports::{Quorum as _, QuorumView};
use dovetail_control::reconcile;
use dovetail_control::schedule::Schedule;
use dovetail_control::services::Core;
use dovetail_control::soft::SoftProblems;
use dovetail_jepsen::checks::Violation;
use dovetail_process::drain::Drain;
use dovetail_process::ready::Readiness;
use dovetail_raft_store::sim::Device;
use dovetail_raft_store::{MemberNode, OpenError, Raft, StoreConfig, raft_config};
use dovetail_routing::state::Digester;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::storage::RaftLogReader as _;
use tokio::sync::{mpsc, watch};
use tokio::time::interval;

use super::docker::SimDocker;
use super::network::{Boot, Network};
use super::plan::Sabotage;
use super::quorum::{SimPeers, SimQuorum, follow};
use super::world::{CLUSTER, Shared};

/// Milliseconds since 1970 at which a run begins by a right clock.
const BEGIN_MS: i64 = 1_790_000_000_000;
/// A member whose disk is damaged and that ended so often is given up.
const DAMAGED_STARTS_MAX: u64 = 12;

/// How a process is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Kill,
    PowerCut,
}

/// A place of the quorum.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) device: Device,
    ends: mpsc::UnboundedSender<End>,
    process: Mutex<Option<SimQuorum>>,
    /// How wrong its clock is.
    clock_off_ms: AtomicI64,
    starts: AtomicU64,
    incarnation: Mutex<String>,
    digester: Mutex<Digester>,
    /// The process and the index whose state was compared last.
    compared: Mutex<Option<(Boot, u64)>>,
}

impl Member {
    /// Makes the member, and returns what ends its processes.
    pub(crate) fn new(world: &Shared, id: u64) -> (Arc<Self>, mpsc::UnboundedReceiver<End>) {
        let (ends, receiver) = mpsc::unbounded_channel();
        let seed = world.random().u64(..);
        let member = Self {
            id,
            device: Device::new(&format!("member-{id}"), seed),
            ends,
            process: Mutex::default(),
            clock_off_ms: AtomicI64::new(world.random().i64(-3_000..3_000)),
            starts: AtomicU64::new(0),
            incarnation: Mutex::default(),
            digester: Mutex::default(),
            compared: Mutex::default(),
        };
        (Arc::new(member), receiver)
    }

    fn process(&self) -> MutexGuard<'_, Option<SimQuorum>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port of the running process.
    pub(crate) fn quorum(&self) -> Option<SimQuorum> {
        self.process().clone()
    }

    pub(crate) fn end(&self, how: End) {
        let _ = self.ends.send(how);
    }

    pub(crate) fn wall_ms(&self, world: &Shared) -> u64 {
        let elapsed = i64::try_from(world.trace.virtual_time().as_millis()).unwrap_or(i64::MAX);
        u64::try_from(BEGIN_MS + elapsed + self.clock_off_ms.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(crate) fn set_clock(&self, off_ms: i64) {
        self.clock_off_ms.store(off_ms, Ordering::Relaxed);
    }

    pub(crate) fn incarnation(&self) -> String {
        self.incarnation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the running process, and shows the checkers what it holds.
    pub(crate) fn inspect(&self, world: &Shared) {
        let Some(process) = self.quorum() else { return };
        let metrics = process.raft.metrics().borrow_watched().clone();
        if metrics.running_state.is_err() {
            return;
        }
        let vote = (metrics.vote.leader_id.term, metrics.vote.leader_id.node_id);
        let mut checks = world.checks();
        if metrics.state == openraft::ServerState::Leader {
            world.expect(checks.elections.leads(self.id, vote));
        }
        let applied = metrics.last_applied.map_or(0, |id| id.index);
        world.expect(checks.committed.applied(self.id, applied));
        let (index, chain) = process.ledger.head();
        if index > 0 {
            world.expect(checks.committed.holds(self.id, index, chain));
        }
        let state = Arc::clone(&process.state.borrow());
        let index = state.applied_index().0;
        let mut compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if compared.replace((process.boot, index)) != Some((process.boot, index)) {
            let mut digester = self.digester.lock().unwrap_or_else(PoisonError::into_inner);
            let digest = digester.digest(&state);
            world.expect(checks.digests.holds(self.id, index, digest.0));
        }
        drop(checks);
        if let Some(reason) = process.diverged() {
            world.violated(Violation {
                property: "a checkpoint agrees",
                what: format!("member {}: {reason}", self.id),
            });
        }
    }

    /// Starts the process whenever it has ended, for ever.
    pub(crate) async fn supervise(
        self: Arc<Self>,
        world: Shared,
        mut ends: mpsc::UnboundedReceiver<End>,
        found: Option<BTreeMap<u64, MemberNode>>,
    ) {
        let mut found = found;
        loop {
            let boot = (self.id, self.starts.fetch_add(1, Ordering::Relaxed) + 1);
            if world.plan.is_sabotaged(Sabotage::ReusedNode) && boot.1 > 1 {
                self.wipe(&world);
            }
            match self.run(&world, boot, &mut ends, found.take()).await {
                Ok(how) => {
                    world.trace.note(format_args!("member {boot:?} ended: {how}"));
                }
                Err(error) => {
                    world.trace.note(format_args!("member {boot:?} not started: {error}"));
                    let refuses =
                        matches!(error, OpenError::Damaged { .. } | OpenError::Lost { .. });
                    if refuses && !world.is_damaged(self.id) {
                        world.violated(Violation {
                            property: "a sound disk is not refused",
                            what: error.to_string(),
                        });
                    }
                    if refuses {
                        world.lose(self.id);
                        return;
                    }
                }
            }
            if world.is_damaged(self.id) && boot.1 > DAMAGED_STARTS_MAX {
                world.lose(self.id);
                return;
            }
            world.pause(20..1_500).await;
        }
    }

    async fn run(
        &self,
        world: &Shared,
        boot: Boot,
        ends: &mut mpsc::UnboundedReceiver<End>,
        found: Option<BTreeMap<u64, MemberNode>>,
    ) -> Result<String, OpenError> {
        let dir = self.device.boot();
        let config = StoreConfig {
            snapshot_entries: world.plan.snapshot_entries,
            checkpoint_entries: 25,
            ..StoreConfig::default()
        };
        let mut store = dovetail_raft_store::open(&dir, self.id, config)?;
        world.checks().committed.started(self.id);
        // Not while it runs: openraft's metrics lag behind what it told others.
        let vote = store.log.read_vote().await.ok().flatten();
        let vote = vote.map_or((0, 0), |vote| (vote.leader_id.term, vote.leader_id.node_id));
        world.expect(world.checks().elections.holds(&self.incarnation(), vote));
        world.trace.note(format_args!("member {boot:?} starts"));
        while ends.try_recv().is_ok() {}
        let handle = store.handle.clone();
        let mut fatal = handle.fatal();
        let network = Network::new(world.clone(), boot);
        let config = raft_config(world.plan.kept_entries).unwrap_or_else(|error| panic!("{error}"));
        let restored = world.plan.is_sabotaged(Sabotage::LeaderRestored);
        let config = match restored {
            true => Arc::new(openraft::Config {
                enable_leader_restore: Some(true),
                ..openraft::Config::clone(&config)
            }),
            false => config,
        };
        let raft = Raft::new(self.id, config, network, store.log, store.machine).await;
        let raft = match raft {
            Ok(raft) => raft,
            Err(fatal) => {
                self.device.kill();
                return Ok(format!("raft did not start: {fatal}"));
            }
        };
        let (sender, view) = watch::channel(QuorumView { this: self.id, ..QuorumView::default() });
        let quorum = SimQuorum {
            world: world.clone(),
            boot,
            raft: raft.clone(),
            store: handle,
            ledger: store.ledger.clone(),
            state: store.state.clone(),
            view,
            stamped: Arc::default(),
            ahead_ms: Arc::default(),
        };
        world.net.up(boot, raft.clone());
        *self.process() = Some(quorum.clone());
        if let Some(nodes) = found {
            let _ = raft.initialize(nodes).await;
        }
        let drain = Drain::new();
        jobs(world, &quorum, &drain);
        let how = tokio::select! {
            biased;
            how = ends.recv() => format!("{:?}", how.inspect(|how| self.cut_off(*how))),
            reason = fatal.wait_for(Option::is_some) => {
                format!("store: {}", reason.ok().and_then(|reason| reason.clone()).unwrap_or_default())
            }
            reason = follow(raft.clone(), self.id, sender) => format!("raft: {reason}"),
        };
        self.device.kill();
        world.net.down(boot);
        *self.process() = None;
        tokio::spawn(async move {
            let _ = drain.finish(Duration::from_secs(1)).await;
        });
        tokio::spawn(async move { drop(raft.shutdown().await) });
        Ok(how)
    }

    fn cut_off(&self, how: End) {
        match how {
            End::Kill => self.device.kill(),
            End::PowerCut => self.device.cut_power(),
        }
    }

    /// Now and then an empty disk is in the place of the old one. The quorum would have to take
    /// it in as another node: it is a founder's, and votes as the node that the old one was.
    fn wipe(&self, world: &Shared) {
        if world.random().u8(0..3) == 0 {
            self.device.wipe();
            if let Err(reason) = self.found(world) {
                world.trace.note(format_args!("member {} has no new disk: {reason}", self.id));
            }
        }
    }

    /// Makes the disk a founder's, and says who this member is.
    pub(crate) fn found(&self, world: &Shared) -> Result<MemberNode, String> {
        let dir = self.device.boot();
        let store = dovetail_raft_store::open(&dir, self.id, StoreConfig::default())
            .map_err(|error| error.to_string())?;
        let owner = store.owner.found(CLUSTER).map_err(|error| error.to_string())?;
        drop(store);
        self.device.kill();
        world.trace.note(format_args!("member {} is {}", self.id, owner.incarnation));
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner) =
            owner.incarnation.clone();
        let address = format!("10.0.0.{}:7000", self.id);
        Ok(MemberNode { slot: self.id, incarnation: owner.incarnation, address })
    }
}

/// What a member does by itself: see `node/src/wire.rs`.
fn jobs(world: &Shared, quorum: &SimQuorum, drain: &Drain) {
    let (id, watch) = (quorum.boot.0, drain.watch());
    let docker = SimDocker::start(world.clone(), quorum.boot, &watch);
    let soft = SoftProblems::new();
    let core = Core {
        quorum: Arc::new(quorum.clone()),
        peers: Arc::new(SimPeers { world: world.clone(), from: id }),
        docker: Arc::clone(&docker),
        fleet: Fleet::new(),
        soft: soft.clone(),
        drain: watch.clone(),
    };
    let reconciler = reconcile::Config::of_member(id).build(Arc::clone(&core.quorum), docker, soft);
    watch.spawn(reconciler.run(watch.clone()));
    watch.spawn(Schedule::new(core.clone(), id).run(watch.clone()));
    let agrees = Readiness::new().register("agreement");
    let config = checkpoint::Config { idle: Duration::from_secs(10) };
    watch.spawn(Checkpointer::new(&core, agrees, config).run(watch.clone()));
    // Raft snapshots, as in `node/src/upkeep.rs`.
    let (raft, store, end) = (quorum.raft.clone(), quorum.store.clone(), watch.clone());
    watch.spawn(async move {
        let mut looks = interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                biased;
                () = end.begun() => return,
                _ = looks.tick() => {}
            }
            if store.should_snapshot() {
                let _ = raft.trigger().snapshot().await;
            }
        }
    });
}
