//! Bases: the state before the ledger's first row, each a hashed file of its own.
//!
//! ```text
//! dir/ledger-bases/<index>.base    in the form of a raft snapshot's file
//! ```
//!
//! A base is written and synced before the rows up to it go, and an older one is removed
//! after they are gone: whenever the process dies, there is one that fits the rows.

use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::files;
use crate::raft_snapshot::{self, Content, RAFT_SNAPSHOT_BYTES_MAX};

/// The folder of a member's bases, within its data folder.
pub(crate) const FOLDER: &str = "ledger-bases";

/// The bases of this member.
#[derive(Debug)]
pub(crate) struct Bases {
    dir: PathBuf,
    /// The indexes, in order; that of a damaged file too.
    kept: Mutex<Vec<u64>>,
}

impl Bases {
    /// Lists what is there, and writes nothing.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join(FOLDER);
        let mut kept = Vec::new();
        match files::list(&dir) {
            Ok(paths) => kept.extend(paths.iter().filter_map(|path| index_of(path))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        kept.sort_unstable();
        Ok(Self { dir, kept: Mutex::new(kept) })
    }

    /// Removes what was never finished, when a member starts.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let paths = match files::list(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            paths => paths?,
        };
        let torn = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "tmp");
        paths.iter().filter(torn).try_for_each(|path| files::remove(path))
    }

    fn kept(&self) -> MutexGuard<'_, Vec<u64>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index}.base"))
    }

    /// The indexes of bases within a range, oldest first.
    pub(crate) fn within(&self, range: impl RangeBounds<u64>) -> Vec<u64> {
        self.kept().iter().copied().filter(|index| range.contains(index)).collect()
    }

    /// Writes a base durably.
    pub(crate) fn store(&self, index: u64, bytes: &[u8]) -> io::Result<()> {
        if !files::exists(&self.dir)? {
            files::make_folder(&self.dir)?;
            self.dir.parent().map_or(Ok(()), files::sync_folder)?;
        }
        files::replace(&self.path(index), &[bytes])?;
        let mut kept = self.kept();
        if let Err(place) = kept.binary_search(&index) {
            kept.insert(place, index);
        }
        Ok(())
    }

    /// Checks and takes apart the base at `index`; the error says what is wrong with it.
    pub(crate) fn read(&self, index: u64) -> Result<Content, String> {
        raft_snapshot::decode(&self.bytes(index)?).map_err(|error| self.damaged(index, &error))
    }

    /// Whether the file of the base at `index` is gone, cannot be what it was, or is not what
    /// `fits`; an error when it cannot be read now.
    pub(crate) fn is_damaged(
        &self,
        index: u64,
        fits: impl FnOnce(Content) -> bool,
    ) -> io::Result<bool> {
        let Some(bytes) = files::read(&self.path(index), RAFT_SNAPSHOT_BYTES_MAX)? else {
            return Ok(true);
        };
        Ok(!raft_snapshot::decode(&bytes).is_ok_and(fits))
    }

    /// The file of the base at `index`, unchecked.
    pub(crate) fn bytes(&self, index: u64) -> Result<Vec<u8>, String> {
        match files::read(&self.path(index), RAFT_SNAPSHOT_BYTES_MAX) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(self.damaged(index, &"the file is gone")),
            Err(error) => Err(self.damaged(index, &error)),
        }
    }

    fn damaged(&self, index: u64, reason: &dyn std::fmt::Display) -> String {
        format!("the ledger's base at {index} ({}): {reason}", self.path(index).display())
    }

    /// Keeps a damaged base for whoever wants to know why, under another name.
    pub(crate) fn set_aside(&self, index: u64) -> io::Result<()> {
        let path = self.path(index);
        if files::exists(&path)? {
            files::rename(&path, &path.with_extension("damaged"))?;
        }
        self.kept().retain(|kept| *kept != index);
        Ok(())
    }

    /// Removes the bases of which `is_needed` says no.
    pub(crate) fn retire(&self, is_needed: impl Fn(u64) -> bool) {
        self.kept().retain(|index| {
            let keep = is_needed(*index);
            if !keep && let Err(error) = files::remove(&self.path(*index)) {
                // It is listed again at the next start, and then removed.
                tracing::warn!(index, %error, "the ledger's old base was not removed");
            }
            keep
        });
    }
}

fn index_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".base")?.parse().ok()
}
