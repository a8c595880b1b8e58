//! Small files that are either there whole and durable, or not there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Length of the hash at the end of a sealed file.
const SEAL_BYTES: usize = blake3::OUT_LEN;

/// Replaces `path` by `parts`, one after the other, durably: the old content or the new, never a mix.
pub(crate) fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(mount) = crate::sim::mount(path) {
        return mount.replace_file(path, &parts.concat());
    }
    let folder = path.parent().ok_or_else(|| io::Error::other("a file without a folder"))?;
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_folder(folder)
}

/// Makes names that were made or removed in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(mount) = crate::sim::mount(folder) {
        return mount.check();
    }
    File::open(folder)?.sync_all()
}

/// Makes a folder, and those above it.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(mount) = crate::sim::mount(path) {
        return mount.check();
    }
    fs::create_dir_all(path)
}

pub(crate) fn exists(path: &Path) -> io::Result<bool> {
    #[cfg(feature = "sim")]
    if let Some(mount) = crate::sim::mount(path) {
        return mount.exists(path);
    }
    path.try_exists()
}

/// The files of a folder, in no order.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    #[cfg(feature = "sim")]
    if let Some(mount) = crate::sim::mount(folder) {
        return mount.list(folder);
    }
    fs::read_dir(folder)?.map(|file| Ok(file?.path())).collect()
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(mount) = crate::sim::mount(from) {
        return mount.rename(from, to);
    }
    fs::rename(from, to)
}

pub(crate) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(feature = "sim")]
    if let Some(mount) = crate::sim::mount(path) {
        return mount.remove(path);
    }
    fs::remove_file(path)
}

/// A lock that one process holds at most, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, never read")] Option<File>);

impl Lock {
    /// `None` when another process holds it.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        #[cfg(feature = "sim")]
        if let Some(mount) = crate::sim::mount(path) {
            return mount.check().map(|()| Some(Self(None)));
        }
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A file of fixed length that is written in place.
#[derive(Debug)]
pub(crate) enum InPlace {
    Real(File),
    #[cfg(feature = "sim")]
    Simulated(crate::sim::Mount, PathBuf),
}

impl InPlace {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if let Some(mount) = crate::sim::mount(path) {
            return Ok(Self::Simulated(mount, path.to_owned()));
        }
        OpenOptions::new().write(true).open(path).map(Self::Real)
    }

    /// One that cannot be written.
    #[cfg(test)]
    pub(crate) fn open_read_only(path: &Path) -> Self {
        Self::Real(File::open(path).expect("the file"))
    }

    /// Writes and syncs.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => {
                file.write_all_at(bytes, offset)?;
                file.sync_data()
            }
            #[cfg(feature = "sim")]
            Self::Simulated(mount, path) => mount.write_file_at(path, bytes, offset),
        }
    }
}

/// Reads at most `limit` bytes; `None` when there is no such file.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    #[cfg(feature = "sim")]
    if let Some(mount) = crate::sim::mount(path) {
        return mount.read_file(path);
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let name = path.display();
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} is longer than {limit} bytes"),
        ));
    }
    Ok(Some(bytes))
}

/// Replaces `path` by `content` behind `magic` and before its hash.
pub(crate) fn replace_sealed(path: &Path, magic: &[u8; 8], content: &[u8]) -> io::Result<()> {
    let hash = blake3::Hasher::new().update(magic).update(content).finalize();
    replace(path, &[magic, content, hash.as_bytes()])
}

/// The content of a file that [`replace_sealed`] wrote; `None` when there is none.
pub(crate) fn read_sealed(path: &Path, magic: &[u8; 8], limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(bytes) = read(path, limit)? else { return Ok(None) };
    let invalid = |reason| {
        let name = path.display();
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} {reason}")))
    };
    if bytes.len() < magic.len() + SEAL_BYTES || bytes[..magic.len()] != magic[..] {
        return invalid("is not a file of this kind");
    }
    let (sealed, seal) = bytes.split_at(bytes.len() - SEAL_BYTES);
    if blake3::hash(sealed).as_bytes()[..] != *seal {
        return invalid("does not match its hash");
    }
    Ok(Some(sealed[magic.len()..].to_vec()))
}
