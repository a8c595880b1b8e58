//! The copy of the snapshot in force, with which a proxy starts when there is no core.
//!
//! One file: a magic line, the cluster id, the revision, the digest of the canonical
//! bytes, the bytes, and a digest of all that. It is replaced by a rename, so a crash leaves the old copy or
//! the new one. Whatever does not hold together is ignored, loudly, and never served.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::{Digest, Revision, Snapshot};

use crate::subscription::{CANONICAL_BYTES_MAX, Position};

/// First bytes of the file; the number is the version of its format.
const MAGIC: &[u8; 16] = b"dovetail copy 1\n";
const FILE: &str = "snapshot.copy";
const FILE_NEW: &str = "snapshot.copy.new";

/// The folder of the copy cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub struct DiskError {
    what: &'static str,
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// A copy that is there and not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("read it")]
    Read(#[source] io::Error),
    #[error("{0}")]
    Content(String),
}

/// What was read from disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub position: Position,
    pub snapshot: Arc<Snapshot>,
    /// When it was written.
    pub stored_at: SystemTime,
}

/// The folder that holds the copy.
#[derive(Clone, Debug)]
pub struct DiskCopy {
    dir: PathBuf,
}

impl DiskCopy {
    /// Opens the folder, makes it if need be, and checks that it can be written.
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |error| DiskError { what, path, error }
        };
        fs::create_dir_all(dir).map_err(failed("make data folder", dir))?;
        let probe = dir.join(FILE_NEW);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&probe)
            .map_err(failed("write data folder", dir))?;
        fs::remove_file(&probe).map_err(failed("write data folder", dir))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where the copy is.
    pub fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// The copy, if there is one that holds together and is of this service cluster.
    pub fn load(&self, service_cluster: &ServiceCluster) -> Result<Option<Loaded>, Damage> {
        let mut bytes = Vec::new();
        let file = match File::open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Damage::Read(error)),
        };
        let modified = file.metadata().and_then(|data| data.modified()).map_err(Damage::Read)?;
        let limit = (CANONICAL_BYTES_MAX + 1_024) as u64;
        file.take(limit).read_to_end(&mut bytes).map_err(Damage::Read)?;
        let (position, snapshot) = parse(&bytes).map_err(Damage::Content)?;
        let loaded = Loaded { position, snapshot, stored_at: modified };
        if loaded.snapshot.service_cluster != *service_cluster {
            return Err(Damage::Content(format!(
                "it is of service cluster {:?}, not {:?}",
                loaded.snapshot.service_cluster.as_str(),
                service_cluster.as_str()
            )));
        }
        Ok(Some(loaded))
    }

    /// Replaces the copy. Returns once it is on the disk.
    pub fn store(&self, position: &Position, canonical: &Bytes) -> io::Result<()> {
        let id = position.cluster_id.as_bytes();
        let id_len = u8::try_from(id.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "the cluster id is too long")
        })?;
        let mut bytes = Vec::with_capacity(canonical.len() + 512);
        bytes.extend_from_slice(MAGIC);
        bytes.push(id_len);
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&position.revision.0.to_be_bytes());
        bytes.extend_from_slice(&position.digest.0);
        bytes.extend_from_slice(canonical);
        let whole = Snapshot::digest_of(&bytes);
        bytes.extend_from_slice(&whole.0);
        let new = self.dir.join(FILE_NEW);
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&new, self.path())?;
        File::open(&self.dir)?.sync_all()
    }
}

fn parse(bytes: &[u8]) -> Result<(Position, Arc<Snapshot>), String> {
    let cut = || "it is cut off".to_owned();
    if !bytes.starts_with(MAGIC) {
        return Err("it is no snapshot copy of a known format".to_owned());
    }
    let (content, whole) = bytes.split_last_chunk::<32>().ok_or_else(cut)?;
    if Snapshot::digest_of(content).0 != *whole {
        return Err("its content is not what was written".to_owned());
    }
    let rest = content.get(MAGIC.len()..).ok_or_else(cut)?;
    let (&id_len, rest) = rest.split_first().ok_or_else(cut)?;
    let (id, rest) = rest.split_at_checked(usize::from(id_len)).ok_or_else(cut)?;
    let cluster_id = std::str::from_utf8(id).map_err(|_| "its cluster id is no text")?;
    let (revision, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    let (digest, canonical) = rest.split_first_chunk::<32>().ok_or_else(cut)?;
    let (revision, digest) = (Revision(u64::from_be_bytes(*revision)), Digest(*digest));
    let found = Snapshot::digest_of(canonical);
    if found != digest {
        return Err(format!("its digest is {found}, but {digest} was written down"));
    }
    let snapshot = Snapshot::decode(canonical).map_err(|error| error.to_string())?;
    if snapshot.revision != revision {
        let held = snapshot.revision;
        return Err(format!("it holds revision {held}, but {revision} was written down"));
    }
    let position = Position { cluster_id: cluster_id.to_owned(), revision, digest };
    Ok((position, Arc::new(snapshot)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(dir: &Path) -> (DiskCopy, Position) {
        let copy = DiskCopy::open(dir).expect("a folder");
        let snapshot = Snapshot { revision: Revision(7), ..Snapshot::default() };
        let canonical = Bytes::from(snapshot.encode());
        let digest = Snapshot::digest_of(&canonical);
        let position = Position { cluster_id: "c1".into(), revision: Revision(7), digest };
        copy.store(&position, &canonical).expect("written");
        (copy, position)
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(DiskCopy::open(dir.path()).is_ok_and(|copy| {
            copy.load(&ServiceCluster::default()).is_ok_and(|loaded| loaded.is_none())
        }));
        let (copy, position) = stored(dir.path());
        let loaded = copy.load(&ServiceCluster::default()).expect("whole").expect("there");
        assert_eq!(loaded.position, position);
        assert_eq!(loaded.snapshot.revision, Revision(7));
    }

    #[test]
    fn a_copy_damaged_in_any_byte_is_never_served() {
        let dir = tempfile::tempdir().expect("a folder");
        let (copy, _) = stored(dir.path());
        let whole = fs::read(copy.path()).expect("a copy");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            fs::write(copy.path(), &damaged).expect("written");
            assert!(copy.load(&ServiceCluster::default()).is_err(), "byte {at}");
        }
        for length in 0..whole.len() {
            fs::write(copy.path(), &whole[..length]).expect("written");
            assert!(copy.load(&ServiceCluster::default()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_copy_of_another_service_cluster_is_not_used() {
        let dir = tempfile::tempdir().expect("a folder");
        let (copy, _) = stored(dir.path());
        assert!(copy.load(&"west".parse().expect("a name")).is_err());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        let error = DiskCopy::open(&file).expect_err("it is a file");
        assert!(error.to_string().contains("file"), "{error}");
    }
}
