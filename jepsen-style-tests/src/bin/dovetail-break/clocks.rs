//! Members' wall clocks, each ahead of the machine's by what a file says.
//!
//! A library of our own stands before the C library (`clocks/realtime.c`): libfaketime, which
//! does the same, hangs a process that waits on conditions with a deadline, and RocksDB does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use dovetail_jepsen::namespaces::tool;

const SOURCE: &str = include_str!("clocks/realtime.c");
/// Where the library finds its file.
const VARIABLE: &str = "WALL_CLOCK";
/// The file: by how much the clock is ahead, and how often such a time was told.
const BYTES: u64 = 16;
const TOLD_AT: u64 = 8;

/// The clocks of all members.
#[derive(Debug)]
pub(crate) struct Clocks {
    library: PathBuf,
    folder: PathBuf,
}

impl Clocks {
    /// Compiles the library, and sets all clocks right.
    pub(crate) fn make(folder: &Path, slots: impl Iterator<Item = u8>) -> anyhow::Result<Self> {
        std::fs::create_dir(folder).context("the folder of clocks")?;
        let (source, library) = (folder.join("realtime.c"), folder.join("realtime.so"));
        std::fs::write(&source, SOURCE)?;
        let [source, object] = [&source, &library].map(|path| path.to_string_lossy().into_owned());
        tool("cc", &["-shared", "-fPIC", "-O1", "-o", &object, &source, "-ldl", "-lpthread"])?;
        let clocks = Self { library, folder: folder.to_path_buf() };
        for slot in slots {
            File::create_new(clocks.file(slot))?.set_len(BYTES)?;
        }
        Ok(clocks)
    }

    fn file(&self, slot: u8) -> PathBuf {
        self.folder.join(format!("member-{slot}"))
    }

    /// What has to stand before the command of each member.
    pub(crate) fn before(&self, slots: impl Iterator<Item = u8>) -> BTreeMap<u8, Vec<OsString>> {
        let one = |slot| {
            let mut preload = OsString::from("LD_PRELOAD=");
            preload.push(&self.library);
            let mut file = OsString::from(format!("{VARIABLE}="));
            file.push(self.file(slot));
            (slot, vec!["env".into(), preload, file])
        };
        slots.map(one).collect()
    }

    /// From now on a member's clock is so far ahead of the machine's, or behind it.
    pub(crate) fn jump(&self, slot: u8, ahead_ms: i64) -> anyhow::Result<()> {
        let file = File::options().write(true).open(self.file(slot))?;
        file.write_all_at(&ahead_ms.to_ne_bytes(), 0).context("set a clock")
    }

    /// How often a member was told another time than the machine's.
    pub(crate) fn told(&self, slot: u8) -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        File::open(self.file(slot))?.read_exact_at(&mut bytes, TOLD_AT).context("read a clock")?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(clocks: &Clocks) -> i64 {
        let mut words = clocks.before([1].into_iter()).remove(&1).unwrap();
        words.extend(["date", "+%s"].map(OsString::from));
        let done = std::process::Command::new(&words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8(done.stdout).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn a_clock_jumps_both_ways_and_says_that_somebody_looked() {
        let folder = tempfile::tempdir().unwrap();
        let clocks = Clocks::make(&folder.path().join("clocks"), 1..=1).unwrap();
        let right = date(&clocks);
        assert_eq!(clocks.told(1).unwrap(), 0);
        for (ahead_ms, seconds) in [(3_600_500, 3_600), (-7_200_999, -7_200)] {
            clocks.jump(1, ahead_ms).unwrap();
            let off = date(&clocks) - right - seconds;
            assert!((-2..=10).contains(&off), "{ahead_ms} ms: off by {off} s");
        }
        assert!(clocks.told(1).unwrap() >= 2);
        clocks.jump(1, 0).unwrap();
        assert!((0..=10).contains(&(date(&clocks) - right)));
    }
}
