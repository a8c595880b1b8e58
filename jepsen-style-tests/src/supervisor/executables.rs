//! Where the executables under test are.

use std::path::{Path, PathBuf};

/// An executable that was found nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is not in {looked}: build it with `cargo build --workspace --bins`")]
pub struct MissingExecutable {
    name: &'static str,
    looked: String,
}

/// The executables that a whole system needs.
#[derive(Clone, Debug)]
pub struct Executables {
    /// A member of the core.
    pub dovetaild: PathBuf,
    /// A proxy.
    pub proxy: PathBuf,
    /// The operator's command line.
    pub dovetail: PathBuf,
}

impl Executables {
    /// Looks in `DOVETAIL_BIN_DIR` if that is set, else beside the running
    /// executable and, for a test in `target/debug/deps`, one folder above.
    pub fn find() -> Result<Self, MissingExecutable> {
        Self::find_in(&folders())
    }

    /// Looks in one folder, such as another build's.
    pub fn of(folder: &Path) -> Result<Self, MissingExecutable> {
        Self::find_in(&[folder.to_path_buf()])
    }

    fn find_in(folders: &[PathBuf]) -> Result<Self, MissingExecutable> {
        let find = |name| find_in(folders, name);
        Ok(Self {
            dovetaild: find("dovetaild")?,
            proxy: find("dovetail-proxy")?,
            dovetail: find("dovetail")?,
        })
    }
}

fn folders() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os("DOVETAIL_BIN_DIR") {
        return vec![folder.into()];
    }
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().skip(1).take(2).map(Path::to_path_buf).collect()
}

fn find_in(folders: &[PathBuf], name: &'static str) -> Result<PathBuf, MissingExecutable> {
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let looked: Vec<String> = folders.iter().map(|path| path.display().to_string()).collect();
        MissingExecutable { name, looked: looked.join(" or ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_executable_says_where_it_was_sought_and_how_to_make_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = find_in(&[folder.path().into()], "dovetaild").unwrap_err().to_string();
        assert!(error.contains("dovetaild is not in") && error.contains("cargo build"), "{error}");
    }
}
