//! The folder where Swarm mounts secrets: certificates, keys and authorities, by name.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use dovetail_routing::names::SecretName;

/// Largest secret that is read, in bytes: what Docker allows one to be.
const SECRET_BYTES_MAX: u64 = 500 * 1_024;

/// Where secrets are read from.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    dir: Option<PathBuf>,
    /// Files in the folder that are no secrets of services.
    reserved: &'static [&'static str],
}

/// The file of a secret as it was at one moment: which one, how large, when written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Option<FileStamp>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    written: (i64, i64),
    changed: (i64, i64),
}

/// A secret that cannot be used. Its content is never part of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("secret {name}: this proxy has no folder of secrets (--secrets-dir)")]
    NoFolder { name: SecretName },
    #[error("secret {name}: {path}", path = .path.display())]
    Read {
        name: SecretName,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("secret {name}: a file of this name is the proxy's own, and no service's")]
    Reserved { name: SecretName },
    #[error("secret {name} is larger than {SECRET_BYTES_MAX} bytes")]
    TooLarge { name: SecretName },
}

impl Secrets {
    /// Secrets are the files of this folder.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, reserved: &[] }
    }

    /// The same, without files of these names.
    pub fn without(self, reserved: &'static [&'static str]) -> Self {
        Self { reserved, ..self }
    }

    /// The folder, if there is one.
    pub fn dir(&self) -> Option<&std::path::Path> {
        self.dir.as_deref()
    }

    /// By what a change of a secret is noticed. Blocks.
    pub fn stamp(&self, name: &SecretName) -> Stamp {
        let path = self.dir.as_ref().map(|dir| dir.join(name.as_str()));
        // Follows links, which is how folders are often replaced.
        let metadata = path.and_then(|path| std::fs::metadata(path).ok());
        Stamp(metadata.map(|file| FileStamp {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            written: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }))
    }

    /// The content of a secret. Blocks.
    pub fn read(&self, name: &SecretName) -> Result<Vec<u8>, SecretError> {
        let dir = self.dir.as_ref().ok_or_else(|| SecretError::NoFolder { name: name.clone() })?;
        if self.reserved.contains(&name.as_str()) {
            return Err(SecretError::Reserved { name: name.clone() });
        }
        let path = dir.join(name.as_str());
        let mut content = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut content))
            .map_err(|error| SecretError::Read { name: name.clone(), path, error })?;
        if content.len() as u64 > SECRET_BYTES_MAX {
            return Err(SecretError::TooLarge { name: name.clone() });
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_of_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("shop.cert"), "pem").expect("written");
        let name: SecretName = "shop.cert".parse().expect("a name");
        let secrets = Secrets::new(Some(dir.path().to_owned()));
        assert_eq!(secrets.read(&name).expect("it is there"), b"pem");
        let missing = secrets.read(&"shop.key".parse().expect("a name")).expect_err("missing");
        assert!(missing.to_string().contains("shop.key"), "{missing}");
        let nowhere = Secrets::default().read(&name).expect_err("no folder");
        assert!(nowhere.to_string().contains("--secrets-dir"), "{nowhere}");
        let without = secrets.clone().without(&["shop.cert"]);
        assert!(matches!(without.read(&name), Err(SecretError::Reserved { .. })));
        let large = vec![b'a'; usize::try_from(SECRET_BYTES_MAX).expect("small") + 1];
        std::fs::write(dir.path().join("shop.cert"), large).expect("written");
        assert!(matches!(secrets.read(&name), Err(SecretError::TooLarge { .. })));
    }
}
