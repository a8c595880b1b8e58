//! The owner marker: whose disk this is, and which quorum it belongs to.
//!
//! A member whose disk is new is a new member: the incarnation is made with the
//! folder, and a vote is given only under an identity that the quorum knows.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message as _;

use crate::codec::{self, messages as pb};
use crate::files;
use crate::types::Membership;

const MAGIC: &[u8; 8] = b"DVTLOWN1";
/// Room for the ids and for many ancestors.
const OWNER_BYTES_MAX: u64 = 64 * 1_024;

/// What the owner marker says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Empty until this disk belongs to a quorum.
    pub cluster_id: String,
    /// The `--id` under which the folder was made.
    pub slot: u64,
    /// 128 random bits in hex, made with the folder.
    pub incarnation: String,
    /// It was there when the quorum of `cluster_id` was formed.
    pub founder: bool,
    /// Cluster ids that this quorum was restored from, newest first.
    pub ancestors: Vec<String>,
    /// Raft's own id of this member, when it was taken in by a running quorum; 0 of a
    /// founder, whose id is its slot.
    pub node_id: u64,
}

/// Why an owner marker could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    #[error("this disk holds data of quorum {held}, and cannot join {given}")]
    HoldsData { held: String, given: String },
    #[error("this disk was taken in as node {held}, and cannot become node {given}")]
    OtherNode { held: u64, given: u64 },
    #[error("a cluster id must not be empty")]
    NoClusterId,
    #[error("write the owner marker {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// What the log says of this disk. Shared by all parts of the store.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// A raft snapshot or a log entry is there.
    pub(crate) data: AtomicBool,
    /// A membership of the log holds this disk's incarnation.
    pub(crate) named: AtomicBool,
}

struct Inner {
    path: PathBuf,
    owner: Mutex<Owner>,
    presence: Arc<Presence>,
}

/// The owner marker in force; every change is durable before it is seen.
#[derive(Clone)]
pub struct OwnerHandle(Arc<Inner>);

impl OwnerHandle {
    pub(crate) fn new(path: PathBuf, owner: Owner, presence: Arc<Presence>) -> Self {
        Self(Arc::new(Inner { path, owner: Mutex::new(owner), presence }))
    }

    fn lock(&self) -> MutexGuard<'_, Owner> {
        self.0.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the marker says now.
    pub fn get(&self) -> Owner {
        self.lock().clone()
    }

    /// Marks this disk as a founder's of `cluster_id`, durably.
    ///
    /// Repeatable, also with another id, as long as the disk holds no data: a
    /// formation that nobody finished is void.
    pub fn found(&self, cluster_id: &str) -> Result<Owner, OwnerError> {
        self.change(cluster_id, None, None)
    }

    /// The same for a quorum that was restored from others, newest first.
    pub(crate) fn found_after(
        &self,
        cluster_id: &str,
        ancestors: Vec<String>,
    ) -> Result<Owner, OwnerError> {
        self.change(cluster_id, None, Some(ancestors))
    }

    /// Marks this disk as one that joins the quorum `cluster_id`, restored from `ancestors`, as
    /// Raft's node `node_id`, durably. Repeatable with the same values; a disk is taken in once.
    pub fn adopt(
        &self,
        cluster_id: &str,
        ancestors: Vec<String>,
        node_id: u64,
    ) -> Result<Owner, OwnerError> {
        self.change(cluster_id, Some(node_id), Some(ancestors))
    }

    fn change(
        &self,
        cluster_id: &str,
        node_id: Option<u64>,
        ancestors: Option<Vec<String>>,
    ) -> Result<Owner, OwnerError> {
        if cluster_id.is_empty() {
            return Err(OwnerError::NoClusterId);
        }
        let founder = node_id.is_none();
        let mut owner = self.lock();
        if owner.cluster_id == cluster_id && (owner.founder || !founder) {
            return match node_id.filter(|given| *given != owner.node_id) {
                Some(given) => Err(OwnerError::OtherNode { held: owner.node_id, given }),
                None => Ok(owner.clone()),
            };
        }
        if self.0.presence.data.load(Ordering::Acquire) {
            let (held, given) = (owner.cluster_id.clone(), cluster_id.to_owned());
            return Err(OwnerError::HoldsData { held, given });
        }
        let node_id = node_id.unwrap_or_default();
        let cluster_id = cluster_id.to_owned();
        let mut changed = Owner { cluster_id, founder, node_id, ..owner.clone() };
        changed.ancestors = ancestors.unwrap_or(changed.ancestors);
        write(&self.0.path, &changed)
            .map_err(|error| OwnerError::Write { path: self.0.path.clone(), error })?;
        owner.clone_from(&changed);
        Ok(changed)
    }

    /// Whether this disk may vote in the quorum `cluster_id`: it is a founder's of
    /// it, or the log that a leader sent names its incarnation.
    pub fn may_vote(&self, cluster_id: &str) -> bool {
        let owner = self.lock();
        !cluster_id.is_empty()
            && owner.cluster_id == cluster_id
            && (owner.founder || self.0.presence.named.load(Ordering::Acquire))
    }

    pub(crate) fn cluster_id(&self) -> String {
        self.lock().cluster_id.clone()
    }

    /// Whether `membership` holds this disk.
    pub(crate) fn is_named_in(&self, membership: &Membership) -> bool {
        let owner = self.lock();
        membership
            .nodes()
            .any(|(_, node)| node.slot == owner.slot && node.incarnation == owner.incarnation)
    }
}

impl fmt::Debug for OwnerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnerHandle").field(&*self.lock()).finish()
    }
}

/// 128 random bits in hex: a new cluster id or incarnation.
pub fn random_id() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(format!("{:032x}", u128::from_be_bytes(random)))
}

/// A new disk's marker.
pub(crate) fn make(slot: u64) -> io::Result<Owner> {
    let incarnation = random_id()?;
    Ok(Owner { slot, incarnation, ..Owner::default() })
}

/// Writes the marker durably.
pub(crate) fn write(path: &Path, owner: &Owner) -> io::Result<()> {
    let message = pb::Owner {
        cluster_id: owner.cluster_id.clone(),
        slot: owner.slot,
        incarnation: owner.incarnation.clone(),
        founder: owner.founder,
        ancestors: owner.ancestors.clone(),
        node_id: owner.node_id,
    };
    files::replace_sealed(path, MAGIC, &message.encode_to_vec())
}

/// Reads the marker; `None` when there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Owner>> {
    let Some(bytes) = files::read_sealed(path, MAGIC, OWNER_BYTES_MAX)? else { return Ok(None) };
    let owner: pb::Owner = codec::decode("owner marker", &bytes[..])?;
    Ok(Some(Owner {
        cluster_id: owner.cluster_id,
        slot: owner.slot,
        incarnation: owner.incarnation,
        founder: owner.founder,
        ancestors: owner.ancestors,
        node_id: owner.node_id,
    }))
}
