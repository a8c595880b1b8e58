//! Small files that are either there whole and durable, or not there.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Length of the hash at the end of a sealed file.
const SEAL_BYTES: usize = blake3::OUT_LEN;

/// Replaces `path` by `parts`, one after the other, durably: the old content or the new, never a mix.
pub(crate) fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
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
    File::open(folder)?.sync_all()
}

/// Reads at most `limit` bytes; `None` when there is no such file.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
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
