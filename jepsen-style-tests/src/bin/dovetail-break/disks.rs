//! A disk for each member: ext4 in a file of memory, whose journal is written rarely, so
//! that what nobody synced is lost with the power, and which can be full. Over it, where it
//! is wanted, a file system that can refuse (`through`).

mod through;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dovetail_jepsen::namespaces::tool;
use fuser::{BackgroundSession, MountOption};

use through::{Refusing, Through};

/// Of one disk. Only what is used takes memory.
const BYTES: u64 = 768 * 1_024 * 1_024;
/// Seconds until ext4 writes by itself what nobody synced.
const OPTIONS: &str = "loop,commit=300";
/// Written and not synced before the power goes: it must not be there afterwards.
const UNSYNCED: &str = "unsynced";
/// What fills a disk.
const FILLER: &str = "filler";

/// How long the file system above a disk may take to close what a dead member had open.
const CLOSED: Duration = Duration::from_secs(5);

/// The disks of all members. Mounts are the run's own, and end with its namespace.
#[derive(Debug)]
pub(crate) struct Disks {
    folder: PathBuf,
    /// What lies over them, by member; empty when nothing does.
    over: BTreeMap<u8, Over>,
}

/// A file system over a disk, served by this process.
#[derive(Debug)]
struct Over {
    refusing: Arc<Refusing>,
    _session: BackgroundSession,
}

impl Disks {
    /// Whether this machine has file systems in user space.
    pub(crate) fn can_refuse() -> bool {
        Path::new("/dev/fuse").exists()
    }

    /// Makes and mounts one for each member, each with a file system over it that can refuse
    /// if `refusing`.
    pub(crate) fn make(
        folder: &Path,
        slots: impl Iterator<Item = u8>,
        refusing: bool,
    ) -> anyhow::Result<Self> {
        fs::create_dir(folder).context("the folder of disks")?;
        tool("mount", &["-t", "tmpfs", "tmpfs", text(folder)?])?;
        let mut disks = Self { folder: folder.to_path_buf(), over: BTreeMap::new() };
        for slot in slots {
            let image = disks.image(slot);
            fs::File::create_new(&image)?.set_len(BYTES)?;
            tool("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)?])?;
            fs::create_dir(disks.mount_point(slot))?;
            std::os::unix::fs::symlink(disks.mount_point(slot), disks.seen_point(slot))?;
            disks.mount(slot)?;
            if refusing {
                let over = disks.lay_over(slot).context("a file system over a disk")?;
                disks.over.insert(slot, over);
            }
        }
        Ok(disks)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn image(&self, slot: u8) -> PathBuf {
        self.folder.join(format!("member-{slot}.img"))
    }

    /// The disk itself. Members see it, or what lies over it, as `member-N`.
    fn mount_point(&self, slot: u8) -> PathBuf {
        self.folder.join(format!("disk-{slot}"))
    }

    fn seen_point(&self, slot: u8) -> PathBuf {
        self.folder.join(format!("member-{slot}"))
    }

    fn lay_over(&self, slot: u8) -> anyhow::Result<Over> {
        let refusing = Arc::new(Refusing::default());
        let through = Through::new(&self.mount_point(slot), refusing.clone());
        let options = [MountOption::FSName(format!("dovetail-{slot}"))];
        fs::remove_file(self.seen_point(slot))?;
        fs::create_dir(self.seen_point(slot))?;
        let session = fuser::spawn_mount2(through, self.seen_point(slot), &options)?;
        Ok(Over { refusing, _session: session })
    }

    /// From now on a disk refuses writes, syncs, both or nothing; how often it did so far.
    pub(crate) fn refuse(&self, slot: u8, writes: bool, syncs: bool) -> Option<u64> {
        let refusing = &self.over.get(&slot)?.refusing;
        refusing.writes.store(writes, Ordering::Relaxed);
        refusing.syncs.store(syncs, Ordering::Relaxed);
        Some(refusing.refused())
    }

    fn mount(&self, slot: u8) -> anyhow::Result<()> {
        let (image, at) = (self.image(slot), self.mount_point(slot));
        tool("mount", &["-t", "ext4", "-o", OPTIONS, text(&image)?, text(&at)?]).map(drop)
    }

    /// What is on the disk now is all that there will be: to be called while the member is
    /// stopped, and before it is killed.
    pub(crate) fn power_cut(&self, slot: u8) -> anyhow::Result<()> {
        // Not synced, so it proves that what is not synced gets lost.
        fs::write(self.mount_point(slot).join(UNSYNCED), "unsynced")?;
        let copy = self.folder.join(format!("member-{slot}.cut"));
        tool("cp", &["--sparse=always", text(&self.image(slot))?, text(&copy)?]).map(drop)
    }

    /// Puts the disk as it was when the power went in the place of the other: to be called
    /// once the member is dead. Whether something was lost.
    pub(crate) async fn power_back(&self, slot: u8) -> anyhow::Result<bool> {
        let begun = Instant::now();
        // The file system over it closes files a moment after their process is dead.
        while let Err(error) = tool("umount", &[text(&self.mount_point(slot))?]) {
            ensure!(begun.elapsed() < CLOSED, error);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fs::rename(self.folder.join(format!("member-{slot}.cut")), self.image(slot))?;
        self.mount(slot)?;
        let marker = self.mount_point(slot).join(UNSYNCED);
        let lost = !fs::read(&marker).is_ok_and(|bytes| !bytes.is_empty());
        if !lost {
            fs::remove_file(marker)?;
        }
        Ok(lost)
    }

    /// Leaves no room.
    pub(crate) fn fill(&self, slot: u8) -> anyhow::Result<()> {
        let mount = self.mount_point(slot);
        let filler = mount.join(FILLER);
        let free = free(&mount)?;
        tool("fallocate", &["-l", &free.to_string(), text(&filler)?])
            .or_else(|_| tool("dd", &["if=/dev/zero", &format!("of={}", text(&filler)?), "bs=64k"]))
            .map(drop)
            // dd ends with an error when the disk is full: that is what it is for.
            .or_else(|error| if free_is_little(&mount) { Ok(()) } else { Err(error) })?;
        ensure!(free_is_little(&mount), "the disk of member {slot} is not full");
        Ok(())
    }

    pub(crate) fn empty(&self, slot: u8) -> anyhow::Result<()> {
        fs::remove_file(self.mount_point(slot).join(FILLER)).context("remove what fills the disk")
    }
}

/// Flips one bit of a file below `folder`, which nobody uses, any of those whose name
/// `is_meant`; which file. `None` when there is no such file.
pub(crate) fn flip(
    folder: &Path,
    random: &mut fastrand::Rng,
    is_meant: fn(&str) -> bool,
) -> anyhow::Result<Option<String>> {
    let mut files = Vec::new();
    files_below(folder, &mut files)?;
    files.retain(|(path, bytes)| *bytes > 0 && is_meant(&path.to_string_lossy()));
    let Some((path, bytes)) = random.choice(files) else { return Ok(None) };
    let (at, bit) = (random.u64(..bytes), random.u8(..8));
    let file = File::options().read(true).write(true).open(&path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
    file.sync_all()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Some(format!("bit {bit} of byte {at} of {bytes} of {name}")))
}

fn files_below(folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            files_below(&entry.path(), files)?;
        } else if metadata.is_file() {
            files.push((entry.path(), metadata.len()));
        }
    }
    files.sort();
    Ok(())
}

fn free(mount: &Path) -> anyhow::Result<u64> {
    let printed = tool("df", &["--output=avail", "-B1", text(mount)?])?;
    let last = printed.lines().last().unwrap_or_default().trim();
    last.parse().with_context(|| format!("df: {printed}"))
}

fn free_is_little(mount: &Path) -> bool {
    free(mount).is_ok_and(|bytes| bytes < 1_024 * 1_024)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
