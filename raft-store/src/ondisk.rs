//! Opening a data folder: whose it is, what it holds, and whether it may be trusted.
//!
//! ```text
//! dir/lock             held while a process uses the folder
//! dir/data-version     the layout of what lies beside it
//! dir/owner            slot, incarnation, cluster id
//! dir/guard            last vote and highest flushed index
//! dir/db/              RocksDB: log, vote, markers, ledger
//! dir/raft-snapshots/  the state at some index
//! dir/ledger-bases/    the state before the oldest row of the ledger
//! ```
//!
//! A disk that lost what it acknowledged must not vote again, so it is refused:
//! the way back is a wiped folder, which is a new incarnation.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dovetail_routing::state::State;
use tokio::sync::watch;

use crate::checkpoint::Checkpoints;
use crate::disk::{Disk, Family, key, one_line};
use crate::files::{self, Lock};
use crate::flush::Flusher;
use crate::guard::{self, Acknowledged, Guard};
use crate::ledger::Ledger;
use crate::log::{Log, LogStore};
use crate::owner::{self, Owner, OwnerHandle, Presence};
use crate::raft_snapshot::{self, Content, RaftSnapshots};
use crate::state_machine::{Parts, SinceSnapshot, StateMachine, chain};

mod upkeep;

/// The layout that this build writes, and the only one that it reads.
pub const DATA_VERSION: u32 = 1;

/// What a wiped disk comes back as.
const ADVICE: &str = "wipe the folder and rejoin as a new incarnation (dovetail member replace)";

/// What a store is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// A raft snapshot is due after so many entries.
    pub snapshot_entries: u64,
    /// A raft snapshot is due after entries of so many bytes.
    pub snapshot_bytes: u64,
    /// What a member held is kept after so many entries; the same on every member.
    pub checkpoint_entries: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            snapshot_entries: 20_000,
            snapshot_bytes: 64 * 1_024 * 1_024,
            checkpoint_entries: 1_000,
        }
    }
}

/// Why a data folder was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data folder {}: {what}", dir.display())]
    Folder {
        dir: PathBuf,
        what: &'static str,
        #[source]
        error: io::Error,
    },
    #[error("data folder {}: another process uses it", dir.display())]
    Locked { dir: PathBuf },
    #[error("data folder {} is of member {found}, not of member {given}: give each member a folder of its own", dir.display())]
    OtherSlot { dir: PathBuf, found: u64, given: u64 },
    #[error("data folder {} has data version {found}, this build reads {DATA_VERSION}", dir.display())]
    OtherVersion { dir: PathBuf, found: String },
    #[error("data folder {} is damaged: {cause}: {ADVICE}", dir.display())]
    Damaged { dir: PathBuf, cause: String },
    #[error("data folder {}: the disk lost acknowledged data: {lost}: this member must be replaced: {ADVICE}", dir.display())]
    Lost { dir: PathBuf, lost: String },
}

/// An open data folder.
///
/// RocksDB is closed, and the folder free again, when every part was dropped.
#[derive(Debug)]
pub struct Store {
    /// For openraft.
    pub log: LogStore,
    /// For openraft.
    pub machine: StateMachine,
    pub owner: OwnerHandle,
    pub ledger: Ledger,
    /// The state after each applied batch.
    pub state: watch::Receiver<Arc<State>>,
    /// What remains of use after `log` and `machine` were given away.
    pub handle: StoreHandle,
}

/// Questions to an open store. Cheap to clone.
#[derive(Clone)]
pub struct StoreHandle {
    parts: Parts,
    config: StoreConfig,
}

impl fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHandle").field("dir", &self.parts.disk.dir()).finish_non_exhaustive()
    }
}

impl StoreHandle {
    /// Whether there is a raft snapshot or at least one log entry.
    pub fn has_data(&self) -> bool {
        self.parts.presence.data.load(Ordering::Acquire)
    }

    /// See [`OwnerHandle::may_vote`].
    pub fn may_vote(&self, cluster_id: &str) -> bool {
        self.parts.owner.may_vote(cluster_id)
    }

    /// Becomes `Some` when nothing can be acknowledged any more: this process must end.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.parts.disk.fatal()
    }

    /// Whether enough was applied since the last raft snapshot to build the next.
    pub fn should_snapshot(&self) -> bool {
        // What was found to differ is kept as it was found.
        if self.parts.checkpoints.diverged().borrow().is_some() {
            return false;
        }
        let since = &self.parts.since;
        since.entries.load(Ordering::Relaxed) >= self.config.snapshot_entries
            || since.bytes.load(Ordering::Relaxed) >= self.config.snapshot_bytes
    }

    /// The newest raft snapshot as bytes: what a backup is, and [`crate::offline`] restores.
    pub fn newest_snapshot(&self) -> io::Result<Option<bytes::Bytes>> {
        Ok(self.parts.snapshots.current()?.map(|(_, bytes)| bytes))
    }

    /// What this member held at marked indexes.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.parts.checkpoints
    }

    /// The index that the newest raft snapshot covers.
    pub fn snapshot_index(&self) -> Option<u64> {
        self.parts.snapshots.newest()
    }
}

impl Store {
    /// See [`StoreHandle::has_data`].
    pub fn has_data(&self) -> bool {
        self.handle.has_data()
    }

    /// See [`OwnerHandle::may_vote`].
    pub fn may_vote(&self, cluster_id: &str) -> bool {
        self.handle.may_vote(cluster_id)
    }

    /// See [`StoreHandle::fatal`].
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.handle.fatal()
    }
}

/// Opens the data folder of member `slot`; makes it when there is none.
pub fn open(dir: &Path, slot: u64, config: StoreConfig) -> Result<Store, OpenError> {
    let folder = Folder(dir);
    files::make_folder(dir).map_err(|error| folder.cannot("make it", error))?;
    let lock = folder.lock()?;
    folder.check_version()?;
    let owner = folder.owner(slot)?;
    let mut guard = folder.guard()?;
    let acknowledged = guard.written();
    let disk = Disk::open(dir, lock).map_err(|error| folder.refuse("open its database", error))?;
    let disk = Arc::new(disk);
    let log = Log::open(disk.clone()).map_err(|error| folder.refuse("read the log", error))?;
    folder.check_acknowledged(&log, acknowledged)?;
    vouch(&disk, &log, &mut guard).map_err(|error| folder.cannot("write the guard file", error))?;
    let log = Arc::new(log);

    let presence = Arc::new(Presence::default());
    let owner = OwnerHandle::new(dir.join("owner"), owner, presence.clone());
    let snapshots =
        RaftSnapshots::open(dir).map_err(|error| folder.cannot("list raft snapshots", error))?;
    let restored = folder.restore(&log, &snapshots)?;
    let ledger =
        Ledger::open(disk.clone()).map_err(|error| folder.refuse("read the ledger", error))?;
    ledger.sweep_bases().map_err(|error| folder.cannot("tidy its ledger", error))?;
    if let Some(content) = &restored {
        folder.check_cluster(&owner, content)?;
        complete(&log, &ledger, content)
            .map_err(|error| folder.refuse("complete the ledger", error))?;
    }
    presence.data.store(log.has_entries() || !snapshots.is_empty(), Ordering::Release);
    let named = is_named(&disk, &owner, restored.as_ref())
        .map_err(|error| folder.refuse("read the markers", error))?;
    presence.named.store(named, Ordering::Release);

    let checkpoints = Checkpoints::open(dir, config.checkpoint_entries)
        .map_err(|error| folder.refuse("read what differed", error))?;
    let flusher = Flusher::start(disk.clone(), guard)
        .map_err(|error| folder.cannot("start the flush thread", error))?;
    let parts = Parts {
        disk,
        flusher: Arc::new(flusher),
        ledger: ledger.clone(),
        snapshots: Arc::new(snapshots),
        owner: owner.clone(),
        presence,
        since: Arc::new(SinceSnapshot::default()),
        checkpoints,
    };
    let machine = StateMachine::new(parts.clone(), restored);
    let log = LogStore::new(log, parts.clone());
    let state = machine.watch();
    files::sync_folder(dir).map_err(|error| folder.cannot("sync it", error))?;
    Ok(Store { log, machine, owner, ledger, state, handle: StoreHandle { parts, config } })
}

/// The owner marker of a data folder that nobody uses; `None` when it has none.
pub fn read_owner(dir: &Path) -> io::Result<Option<Owner>> {
    owner::read(&dir.join("owner"))
}

/// The data folder that is being opened, for errors and checks.
pub(crate) struct Folder<'d>(pub(crate) &'d Path);

impl Folder<'_> {
    pub(crate) fn cannot(&self, what: &'static str, error: io::Error) -> OpenError {
        OpenError::Folder { dir: self.0.to_owned(), what, error }
    }

    /// Damage when the content is wrong; a full disk or a missing permission is none.
    pub(crate) fn refuse(&self, what: &'static str, error: io::Error) -> OpenError {
        if error.kind() == io::ErrorKind::InvalidData {
            self.damaged_as(one_line(&chain(&error)))
        } else {
            self.cannot(what, error)
        }
    }

    fn damaged_as(&self, cause: impl Into<String>) -> OpenError {
        OpenError::Damaged { dir: self.0.to_owned(), cause: cause.into() }
    }

    fn lost(&self, lost: String) -> OpenError {
        OpenError::Lost { dir: self.0.to_owned(), lost }
    }

    pub(crate) fn holds(&self, name: &str) -> Result<bool, OpenError> {
        files::exists(&self.0.join(name)).map_err(|error| self.cannot("look into it", error))
    }

    pub(crate) fn lock(&self) -> Result<Lock, OpenError> {
        match Lock::take(&self.0.join("lock")) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(OpenError::Locked { dir: self.0.to_owned() }),
            Err(error) => Err(self.cannot("lock it", error)),
        }
    }

    /// The version is written first, so a folder without one is new or not ours.
    pub(crate) fn check_version(&self) -> Result<(), OpenError> {
        let path = self.0.join("data-version");
        let this = format!("dovetail data {DATA_VERSION}\n");
        match files::read(&path, 256).map_err(|error| self.cannot("read data-version", error))? {
            Some(found) if found == this.as_bytes() => Ok(()),
            Some(found) => {
                let found = String::from_utf8_lossy(&found);
                let found = found.strip_prefix("dovetail data ").unwrap_or(&found);
                let found = format!("{:?}", found.trim());
                Err(OpenError::OtherVersion { dir: self.0.to_owned(), found })
            }
            None if self.holds("db")? || self.holds("owner")? => {
                Err(self.damaged_as("data-version is missing"))
            }
            None => files::replace(&path, &[this.as_bytes()])
                .map_err(|error| self.cannot("write data-version", error)),
        }
    }

    fn owner(&self, slot: u64) -> Result<Owner, OpenError> {
        let path = self.0.join("owner");
        match owner::read(&path).map_err(|error| self.refuse("read the owner marker", error))? {
            Some(owner) if owner.slot == slot => Ok(owner),
            Some(owner) => {
                Err(OpenError::OtherSlot { dir: self.0.to_owned(), found: owner.slot, given: slot })
            }
            None if self.holds("db")? => Err(self.damaged_as("the owner marker is missing")),
            None => owner::make(slot)
                .and_then(|owner| owner::write(&path, &owner).map(|()| owner))
                .map_err(|error| self.cannot("write the owner marker", error)),
        }
    }

    /// The owner marker of a folder that must have one.
    pub(crate) fn known_owner(&self) -> Result<Owner, OpenError> {
        let owner = owner::read(&self.0.join("owner"));
        owner
            .map_err(|error| self.refuse("read the owner marker", error))?
            .ok_or_else(|| self.damaged_as("the owner marker is missing"))
    }

    /// The guard is made before RocksDB, so a folder with the one has the other.
    fn guard(&self) -> Result<Guard, OpenError> {
        let path = guard::path(self.0);
        let found =
            Guard::open(&path).map_err(|error| self.refuse("read the guard file", error))?;
        match found {
            Some(guard) => Ok(guard),
            None if self.holds("db")? => Err(self.damaged_as("the guard file is missing")),
            None => Guard::make(&path).map_err(|error| self.cannot("write the guard file", error)),
        }
    }

    /// Compares RocksDB with what was acknowledged.
    fn check_acknowledged(&self, log: &Log, acknowledged: Acknowledged) -> Result<(), OpenError> {
        let last = log.last().map(|id| id.index);
        if let Some(flushed) = acknowledged.flushed.filter(|flushed| last < Some(*flushed)) {
            let last = last.map_or_else(|| "is empty".to_owned(), |last| format!("ends at {last}"));
            return Err(self.lost(format!("entry {flushed} was acknowledged, the log {last}")));
        }
        // Votes are ordered only in part; what is not equal or newer is lost.
        let held = log.vote();
        match acknowledged.vote {
            Some(vote) if !held.is_some_and(|held| held >= vote) => {
                let held = held.map_or_else(|| "none".to_owned(), |held| held.to_string());
                Err(self.lost(format!("the vote {vote} was acknowledged, the log holds {held}")))
            }
            _ => Ok(()),
        }
    }

    /// The newest whole raft snapshot from which the log goes on.
    fn restore(&self, log: &Log, snapshots: &RaftSnapshots) -> Result<Option<Content>, OpenError> {
        let restored = snapshots
            .newest_whole(raft_snapshot::decode)
            .map_err(|error| self.cannot("read a raft snapshot", error))?
            .map(|(content, _)| content);
        let covered = restored.as_ref().and_then(|content| content.meta.last_log_id);
        match log.purged() {
            Some(purged) if covered.map(|id| id.index) < Some(purged.index) => {
                let index = purged.index;
                Err(self.damaged_as(format!(
                    "the log is purged up to {index}, and no whole raft snapshot reaches that far"
                )))
            }
            _ => Ok(restored),
        }
    }

    fn check_cluster(&self, owner: &OwnerHandle, content: &Content) -> Result<(), OpenError> {
        let ours = owner.cluster_id();
        if content.cluster_id == ours {
            return Ok(());
        }
        let theirs = &content.cluster_id;
        Err(self.damaged_as(format!(
            "the raft snapshot is of quorum {theirs:?}, the owner marker says {ours:?}"
        )))
    }
}

/// Has the guard know what is found: from here on this member answers for it, and a process
/// that ended within its last second did not tell.
fn vouch(disk: &Disk, log: &Log, guard: &mut Guard) -> io::Result<()> {
    let known = guard.written();
    let flushed = known.flushed.max(log.last().map(|id| id.index));
    let found = Acknowledged { vote: log.vote().or(known.vote), flushed };
    if found == known {
        return Ok(());
    }
    disk.flush()?;
    guard.write(found)
}

/// Gives the ledger what a power cut took: rows up to the raft snapshot, from the
/// log where it holds them, else by a jump.
fn complete(log: &Log, ledger: &Ledger, content: &Content) -> io::Result<()> {
    let Some(id) = content.meta.last_log_id else { return Ok(()) };
    ledger.cover(id.index);
    if ledger.next() > id.index {
        return Ok(());
    }
    // Only when the log holds the raft snapshot's own last entry are the entries
    // before it those that the state was built from.
    if log.id_at(id.index)? == Some(id) {
        log.complete_ledger(ledger, &content.cluster_id, id.index)?;
    }
    if ledger.next() <= id.index {
        return ledger.jump(id.index, content.ledger_hash, &raft_snapshot::encode(content)?);
    }
    ledger.agrees(id.index, &content.ledger_hash)
}

fn is_named(disk: &Disk, owner: &OwnerHandle, restored: Option<&Content>) -> io::Result<bool> {
    let restored = restored
        .is_some_and(|content| owner.is_named_in(content.meta.last_membership.membership()));
    Ok(restored || disk.get(Family::Meta, key::NAMED)?.is_some())
}
