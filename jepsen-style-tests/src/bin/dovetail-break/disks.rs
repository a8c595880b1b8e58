//! A disk for each member: ext4 in a file of memory, whose journal is written rarely, so
//! that what nobody synced is lost with the power, and which can be full.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use dovetail_jepsen::namespaces::tool;

/// Of one disk. Only what is used takes memory.
const BYTES: u64 = 768 * 1_024 * 1_024;
/// Seconds until ext4 writes by itself what nobody synced.
const OPTIONS: &str = "loop,commit=300";
/// Written and not synced before the power goes: it must not be there afterwards.
const UNSYNCED: &str = "unsynced";
/// What fills a disk.
const FILLER: &str = "filler";

/// The disks of all members. Mounts are the run's own, and end with its namespace.
#[derive(Debug)]
pub(crate) struct Disks {
    folder: PathBuf,
}

impl Disks {
    /// Makes and mounts one for each member.
    pub(crate) fn make(folder: &Path, members: u8) -> anyhow::Result<Self> {
        fs::create_dir(folder).context("the folder of disks")?;
        tool("mount", &["-t", "tmpfs", "tmpfs", text(folder)?])?;
        let disks = Self { folder: folder.to_path_buf() };
        for slot in 1..=members {
            let image = disks.image(slot);
            fs::File::create_new(&image)?.set_len(BYTES)?;
            tool("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)?])?;
            fs::create_dir(disks.mount_point(slot))?;
            disks.mount(slot)?;
        }
        Ok(disks)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn image(&self, slot: u8) -> PathBuf {
        self.folder.join(format!("member-{slot}.img"))
    }

    fn mount_point(&self, slot: u8) -> PathBuf {
        self.folder.join(format!("member-{slot}"))
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
    pub(crate) fn power_back(&self, slot: u8) -> anyhow::Result<bool> {
        tool("umount", &[text(&self.mount_point(slot))?])?;
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
