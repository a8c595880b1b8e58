//! A new quorum of one member out of what is left: a backup, or a member's own folder.
//!
//! ```text
//! backup (a raft snapshot's file) ─────────────┐
//! folder ─► open, apply all of its log ─► snapshot ─► another quorum's id, index + 1,000,000,000,
//!           (its files are set aside)                 one voter ─► a folder to start from
//! ```
//!
//! The folder is whole before it says that it holds data; what ends halfway is refused by
//! the next start, and made again after it was emptied. No process may use it meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dovetail_routing::LogIndex;
use dovetail_routing::state::RESTORED_BEYOND;
use futures_util::stream;
use openraft::storage::{
    RaftLogReader as _, RaftLogStorage as _, RaftSnapshotBuilder as _, RaftStateMachine as _,
};

use crate::base;
use crate::checkpoint;
use crate::ondisk::{self, OpenError, StoreConfig};
use crate::owner::{self, OwnerError};
use crate::raft_snapshot::{self, Content, RAFT_SNAPSHOT_BYTES_MAX, RaftSnapshots};
use crate::types::{
    LeaderId, LogId, MemberNode, Membership, RaftSnapshotMeta, StoredMembership, Vote,
};

/// Log entries that are applied at once.
const CHUNK_ENTRIES: u64 = 1_000;

/// The files of a data folder that belong to one quorum; `lock` and `data-version` do not.
const OF_QUORUM: [&str; 6] =
    ["owner", "guard", "db", "raft-snapshots", base::FOLDER, checkpoint::FILE];

/// Why no new quorum was made.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("read the backup {}", path.display())]
    Backup {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("data folder {} holds data of quorum {held}: give the restored member an empty one", dir.display())]
    HoldsData { dir: PathBuf, held: String },
    #[error("data folder {} holds no data: there is nothing to recover", dir.display())]
    NoData { dir: PathBuf },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error("data folder {}: {what}", dir.display())]
    Folder {
        dir: PathBuf,
        what: &'static str,
        #[source]
        error: io::Error,
    },
}

/// The quorum that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewQuorum {
    pub cluster_id: String,
    /// The quorum whose place it takes.
    pub parent: String,
    /// The last index of the parent that it holds.
    pub parent_index: u64,
    /// Where it goes on.
    pub index: u64,
    /// Where the parent's files were set aside, in a recovery.
    pub aside: Option<PathBuf>,
}

/// Who the one member of the new quorum is.
#[derive(Clone, Copy, Debug)]
pub struct Founder<'f> {
    pub slot: u64,
    /// How others reach it, `HOST:PORT`.
    pub address: &'f str,
}

/// Makes a new quorum in the empty folder `dir` out of the backup at `path`.
pub async fn restore(
    path: &Path,
    dir: &Path,
    founder: Founder<'_>,
) -> Result<NewQuorum, OfflineError> {
    let unread = |error| OfflineError::Backup { path: path.to_owned(), error };
    let bytes = crate::files::read(path, RAFT_SNAPSHOT_BYTES_MAX).map_err(unread)?;
    let bytes = bytes.ok_or_else(|| unread(io::Error::from(io::ErrorKind::NotFound)))?;
    let content = raft_snapshot::decode(&bytes).map_err(unread)?;
    begin(dir, founder, content, None).await
}

/// Makes a new quorum out of all that the member's folder `dir` holds.
///
/// Entries that others acknowledged and that never reached this disk are lost; those
/// that it holds and that nobody acknowledged are kept.
pub async fn recover(dir: &Path, founder: Founder<'_>) -> Result<NewQuorum, OfflineError> {
    if ondisk::read_owner(dir).ok().flatten().is_none() {
        return Err(OfflineError::NoData { dir: dir.to_owned() });
    }
    let content = take_all(dir, founder.slot).await?;
    let failed = |what| move |error| OfflineError::Folder { dir: dir.to_owned(), what, error };
    let aside = set_aside(dir, &content.cluster_id).map_err(failed("set its files aside"))?;
    begin(dir, founder, content, Some(aside)).await
}

/// The state after the last entry that a folder holds.
async fn take_all(dir: &Path, slot: u64) -> Result<Content, OfflineError> {
    let failed = |what| move |error| OfflineError::Folder { dir: dir.to_owned(), what, error };
    let mut store = ondisk::open(dir, slot, StoreConfig::default())?;
    if !store.has_data() {
        return Err(OfflineError::NoData { dir: dir.to_owned() });
    }
    let (applied, _) = store.machine.applied_state().await.map_err(failed("read its state"))?;
    let state = store.log.get_log_state().await.map_err(failed("read its log"))?;
    let end = state.last_log_id.map_or(0, |id| id.index + 1);
    let mut next = applied.map_or(0, |id| id.index + 1);
    let mut reader = store.log.get_log_reader().await;
    while next < end {
        let upto = end.min(next.saturating_add(CHUNK_ENTRIES));
        let read = reader.try_get_log_entries(next..upto).await;
        let entries = read.map_err(failed("read its log"))?;
        let Some(last) = entries.last().map(|entry| entry.log_id.index) else { break };
        let entries = stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
        store.machine.apply(entries).await.map_err(failed("apply its log"))?;
        next = last + 1;
    }
    let mut builder = store.machine.get_snapshot_builder().await;
    let snapshot = builder.build_snapshot().await.map_err(failed("take its state"))?;
    raft_snapshot::decode(&snapshot.snapshot).map_err(failed("take its state"))
}

/// Moves what belongs to a quorum into a folder within `dir`, which may be a mount.
fn set_aside(dir: &Path, cluster_id: &str) -> io::Result<PathBuf> {
    let name = |attempt| match attempt {
        0 => format!("before-{cluster_id}"),
        attempt => format!("before-{cluster_id}-{attempt}"),
    };
    let mut aside = (0_u32..).map(|attempt| dir.join(name(attempt)));
    let aside = aside.find(|path| !path.exists()).unwrap_or_else(|| dir.join("before"));
    fs::create_dir(&aside)?;
    for file in OF_QUORUM {
        match fs::rename(dir.join(file), aside.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // So that the folder can be opened as it is, to export its ledger.
    fs::copy(dir.join("data-version"), aside.join("data-version"))?;
    crate::files::sync_folder(&aside)?;
    crate::files::sync_folder(dir)?;
    Ok(aside)
}

/// Makes the folder of the one member of a new quorum that goes on from `content`.
async fn begin(
    dir: &Path,
    founder: Founder<'_>,
    content: Content,
    aside: Option<PathBuf>,
) -> Result<NewQuorum, OfflineError> {
    let failed = |what| move |error| OfflineError::Folder { dir: dir.to_owned(), what, error };
    let mut store = ondisk::open(dir, founder.slot, StoreConfig::default())?;
    if store.has_data() {
        let held = store.owner.get().cluster_id;
        return Err(OfflineError::HoldsData { dir: dir.to_owned(), held });
    }
    let cluster_id = owner::random_id().map_err(failed("make a cluster id"))?;
    let parent = content.cluster_id.clone();
    let end = content.meta.last_log_id;
    let leader_id = end.map_or(LeaderId { term: 0, node_id: founder.slot }, |id| id.leader_id);
    let state = content.state.restored_from(&parent, LogIndex(end.map_or(0, |id| id.index)));
    let LogIndex(index) = state.applied_index();
    let ancestors = state.ancestors().iter().map(ToString::to_string).collect();
    let marker = store.owner.found_after(&cluster_id, ancestors)?;
    let node = MemberNode {
        slot: founder.slot,
        incarnation: marker.incarnation,
        address: founder.address.to_owned(),
    };
    let membership =
        Membership::new(vec![[founder.slot].into()], BTreeMap::from([(founder.slot, node)]))
            .map_err(io::Error::other)
            .map_err(failed("name its member"))?;
    let last = LogId::new(leader_id, index);
    // A vote below the state's term would let the first leader write entries of the past.
    let vote = Vote::new(leader_id.term, founder.slot);
    store.log.save_vote(&vote).await.map_err(failed("write its vote"))?;
    let content = Content {
        meta: RaftSnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(Some(last), membership),
        },
        cluster_id: cluster_id.clone(),
        ledger_hash: content.ledger_hash,
        state,
    };
    let bytes = raft_snapshot::encode(&content).map_err(failed("write its state"))?;
    let snapshots = RaftSnapshots::open(dir).map_err(failed("write its state"))?;
    snapshots.store(last, &bytes).map_err(failed("write its state"))?;
    drop(store);
    // Opened once more, its ledger goes on from there, with the state as its base.
    ondisk::open(dir, founder.slot, StoreConfig::default())?;
    Ok(NewQuorum {
        cluster_id,
        parent,
        parent_index: index.saturating_sub(RESTORED_BEYOND),
        index,
        aside,
    })
}
