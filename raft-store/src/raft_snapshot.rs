//! Raft snapshots: the whole state at one index, each a hashed file of its own.
//!
//! ```text
//! magic (8) ‖ version u32 ‖ header length u32 ‖ header ‖ State::encode ‖ BLAKE3 (32)
//! ```
//!
//! The file's bytes are what is sent to another member, so whoever installs one
//! checks the same hash. Two are kept: an older one stands in for a damaged one, as
//! long as the log still holds what follows it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dovetail_routing::state::State;
use prost::Message as _;

use crate::codec::{self, messages as pb};
use crate::files;
use crate::ledger::LedgerHash;
use crate::types::{LeaderId, LogId, RaftSnapshotMeta};

/// The largest raft snapshot that is built, sent or installed, in bytes.
pub const RAFT_SNAPSHOT_BYTES_MAX: u64 = 256 * 1_024 * 1_024;
/// Raft snapshots kept.
const KEPT: usize = 2;

const MAGIC: &[u8; 8] = b"DVTLSNAP";
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 8 + 4 + 4;
const HASH_BYTES: usize = blake3::OUT_LEN;

/// A raft snapshot, taken apart.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) meta: RaftSnapshotMeta,
    pub(crate) cluster_id: String,
    /// The ledger's hash at the last entry that the state holds.
    pub(crate) ledger_hash: LedgerHash,
    pub(crate) state: State,
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// The bytes of a raft snapshot.
pub(crate) fn encode(content: &Content) -> io::Result<Bytes> {
    let body = content.state.encode();
    let header = pb::RaftSnapshotHeader {
        meta: Some((&content.meta).into()),
        cluster_id: content.cluster_id.clone(),
        ledger_hash: content.ledger_hash.to_vec(),
        body_bytes: body.len() as u64,
    }
    .encode_to_vec();
    let bytes = PREFIX_BYTES + header.len() + body.len() + HASH_BYTES;
    if bytes as u64 > RAFT_SNAPSHOT_BYTES_MAX {
        return Err(invalid(format!(
            "a raft snapshot of {bytes} bytes is above the limit of {RAFT_SNAPSHOT_BYTES_MAX}"
        )));
    }
    let mut file = Vec::with_capacity(bytes);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&u32::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes());
    file.extend_from_slice(&header);
    file.extend_from_slice(&body);
    let hash = blake3::hash(&file);
    file.extend_from_slice(hash.as_bytes());
    Ok(file.into())
}

/// Checks the hash and reads the header; returns it and where the body lies.
fn open_sealed(bytes: &[u8]) -> io::Result<(pb::RaftSnapshotHeader, &[u8])> {
    if bytes.len() as u64 > RAFT_SNAPSHOT_BYTES_MAX {
        return Err(invalid("raft snapshot: above the limit"));
    }
    let sealed = bytes.len().checked_sub(HASH_BYTES).filter(|sealed| *sealed >= PREFIX_BYTES);
    let Some((sealed, hash)) = sealed.map(|sealed| bytes.split_at(sealed)) else {
        return Err(invalid("raft snapshot: too short"));
    };
    if sealed[..MAGIC.len()] != MAGIC[..] {
        return Err(invalid("raft snapshot: another kind of file"));
    }
    if blake3::hash(sealed).as_bytes()[..] != *hash {
        return Err(invalid("raft snapshot: it does not match its hash"));
    }
    let number = |at: usize| {
        sealed[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    };
    let version = number(MAGIC.len());
    if version != VERSION {
        // Of another build, not damaged: it is not set aside.
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("raft snapshot: version {version} is not {VERSION}"),
        ));
    }
    let rest = &sealed[PREFIX_BYTES..];
    let header_bytes = usize::try_from(number(MAGIC.len() + 4)).map_err(io::Error::other)?;
    let Some((header, body)) = rest.split_at_checked(header_bytes) else {
        return Err(invalid("raft snapshot: the header is cut"));
    };
    let header: pb::RaftSnapshotHeader = codec::decode("raft snapshot", header)?;
    if header.body_bytes != body.len() as u64 {
        return Err(invalid("raft snapshot: the body is cut"));
    }
    Ok((header, body))
}

fn meta_of(header: &pb::RaftSnapshotHeader) -> io::Result<RaftSnapshotMeta> {
    let Some(meta) = header.meta.clone() else { return Err(invalid("raft snapshot: no meta")) };
    Ok(meta.try_into()?)
}

/// Checks and takes apart the bytes of a raft snapshot.
pub(crate) fn decode(bytes: &[u8]) -> io::Result<Content> {
    let (header, body) = open_sealed(bytes)?;
    let meta = meta_of(&header)?;
    let ledger_hash = header.ledger_hash.as_slice().try_into();
    let ledger_hash = ledger_hash.map_err(|_| invalid("raft snapshot: no ledger hash"))?;
    let state = State::decode(body).map_err(io::Error::other)?;
    Ok(Content { meta, cluster_id: header.cluster_id, ledger_hash, state })
}

/// A raft snapshot's file.
#[derive(Clone, Debug)]
struct Kept {
    id: LogId,
    path: PathBuf,
}

/// The raft snapshots of this member.
#[derive(Debug)]
pub(crate) struct RaftSnapshots {
    dir: PathBuf,
    /// Oldest first.
    kept: Mutex<Vec<Kept>>,
}

impl RaftSnapshots {
    /// Lists what is there, and removes what was never finished.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("raft-snapshots");
        files::make_folder(&dir)?;
        let mut kept = Vec::new();
        for path in files::list(&dir)? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                files::remove(&path)?;
            } else if let Some(id) = id_of(&path) {
                kept.push(Kept { id, path });
            }
        }
        kept.sort_by_key(|kept| (kept.id.index, kept.id));
        Ok(Self { dir, kept: Mutex::new(kept) })
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index that the newest one covers.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.kept().last().map(|kept| kept.id.index)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept().is_empty()
    }

    /// The newest that is whole, with its bytes. Damaged ones are set aside, and said.
    pub(crate) fn newest_whole<T>(
        &self,
        read: impl Fn(&[u8]) -> io::Result<T>,
    ) -> io::Result<Option<(T, Bytes)>> {
        loop {
            let Some(newest) = self.kept().last().cloned() else { return Ok(None) };
            let found = match files::read(&newest.path, RAFT_SNAPSHOT_BYTES_MAX) {
                Ok(Some(bytes)) => read(&bytes).map(|content| (content, bytes)),
                Ok(None) => Err(invalid("raft snapshot: the file is gone")),
                Err(error) => Err(error),
            };
            match found {
                Ok((content, bytes)) => return Ok(Some((content, bytes.into()))),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(
                        file = %newest.path.display(),
                        %error,
                        "raft snapshot refused, taking an older one"
                    );
                    let aside = newest.path.with_extension("damaged");
                    if let Err(error) = files::rename(&newest.path, &aside) {
                        tracing::warn!(%error, "raft snapshot could not be set aside");
                    }
                    self.kept().retain(|kept| kept.id != newest.id);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The newest one's meta and bytes, ready to be sent.
    pub(crate) fn current(&self) -> io::Result<Option<(RaftSnapshotMeta, Bytes)>> {
        self.newest_whole(|bytes| meta_of(&open_sealed(bytes)?.0))
    }

    /// Writes a raft snapshot durably, and removes the oldest past those that are kept.
    pub(crate) fn store(&self, id: LogId, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join(name_of(id));
        files::replace(&path, &[bytes])?;
        let mut kept = self.kept();
        kept.retain(|other| other.id != id);
        kept.push(Kept { id, path });
        kept.sort_by_key(|kept| (kept.id.index, kept.id));
        while kept.len() > KEPT {
            let oldest = kept.remove(0);
            if let Err(error) = files::remove(&oldest.path) {
                tracing::warn!(file = %oldest.path.display(), %error, "raft snapshot was not removed");
            }
        }
        Ok(())
    }

    /// Whether the file of `id` is there.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        self.kept().iter().any(|kept| kept.id == id)
    }
}

/// `<term>-<node>-<index>.snap`
fn name_of(id: LogId) -> String {
    format!("{}-{}-{}.snap", id.leader_id.term, id.leader_id.node_id, id.index)
}

fn id_of(path: &Path) -> Option<LogId> {
    let name = path.file_name()?.to_str()?.strip_suffix(".snap")?;
    let mut numbers = name.split('-').map(str::parse);
    let (Some(Ok(term)), Some(Ok(node_id)), Some(Ok(index)), None) =
        (numbers.next(), numbers.next(), numbers.next(), numbers.next())
    else {
        return None;
    };
    Some(LogId::new(LeaderId { term, node_id }, index))
}
