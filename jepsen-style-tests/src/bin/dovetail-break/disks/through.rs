//! A file system in user space that hands everything to a folder below it, and can be told
//! to refuse: a disk whose writes, or whose syncs, end with an input/output error.

mod kernel;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use fuser::{FileAttr, FileType};
use rustix::io::Errno;

/// What the kernel calls the folder itself.
const ROOT: u64 = 1;

/// What a disk refuses, and how often it did.
#[derive(Debug, Default)]
pub(crate) struct Refusing {
    pub(crate) writes: AtomicBool,
    pub(crate) syncs: AtomicBool,
    refused: AtomicU64,
}

impl Refusing {
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn is_asked(&self, what: &AtomicBool) -> io::Result<()> {
        if what.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Errno::IO.into());
        }
        Ok(())
    }
}

/// The file system.
#[derive(Debug)]
pub(crate) struct Through {
    below: PathBuf,
    refusing: Arc<Refusing>,
    /// By inode, below `below`.
    paths: HashMap<u64, PathBuf>,
    inodes: HashMap<PathBuf, u64>,
    last_inode: u64,
    open: HashMap<u64, File>,
    last_handle: u64,
}

impl Through {
    pub(crate) fn new(below: &Path, refusing: Arc<Refusing>) -> Self {
        let root = PathBuf::new();
        Self {
            below: below.to_path_buf(),
            refusing,
            paths: [(ROOT, root.clone())].into(),
            inodes: [(root, ROOT)].into(),
            last_inode: ROOT,
            open: HashMap::new(),
            last_handle: 0,
        }
    }

    fn path(&self, inode: u64) -> io::Result<PathBuf> {
        let path = self.paths.get(&inode).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.below.join(path))
    }

    /// Where a name in a folder lies: as the kernel's inodes have it, and below.
    fn child(&self, parent: u64, name: &OsStr) -> io::Result<(PathBuf, PathBuf)> {
        let path = self.paths.get(&parent).ok_or(io::ErrorKind::NotFound)?.join(name);
        let below = self.below.join(&path);
        Ok((path, below))
    }

    fn inode(&mut self, path: PathBuf) -> u64 {
        let next = self.last_inode + 1;
        let inode = *self.inodes.entry(path.clone()).or_insert(next);
        self.last_inode = self.last_inode.max(inode);
        self.paths.entry(inode).or_insert(path);
        inode
    }

    fn forget_path(&mut self, path: &Path) {
        if let Some(inode) = self.inodes.remove(path) {
            self.paths.remove(&inode);
        }
    }

    fn file(&self, handle: u64) -> io::Result<&File> {
        self.open.get(&handle).ok_or_else(|| Errno::BADF.into())
    }

    fn opened(&mut self, file: File) -> u64 {
        self.last_handle += 1;
        self.open.insert(self.last_handle, file);
        self.last_handle
    }

    fn entry(&mut self, parent: u64, name: &OsStr) -> io::Result<FileAttr> {
        let (path, below) = self.child(parent, name)?;
        let metadata = fs::symlink_metadata(below)?;
        Ok(attributes(self.inode(path), &metadata))
    }

    fn resized(
        &mut self,
        inode: u64,
        size: Option<u64>,
        handle: Option<u64>,
    ) -> io::Result<FileAttr> {
        if let Some(size) = size {
            self.refusing.is_asked(&self.refusing.writes)?;
            match handle {
                Some(handle) => self.file(handle)?.set_len(size)?,
                None => OpenOptions::new().write(true).open(self.path(inode)?)?.set_len(size)?,
            }
        }
        Ok(attributes(inode, &fs::symlink_metadata(self.path(inode)?)?))
    }

    fn create_file(
        &mut self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> io::Result<(FileAttr, u64)> {
        self.refusing.is_asked(&self.refusing.writes)?;
        let (path, below) = self.child(parent, name)?;
        let file = options(flags).write(true).create(true).mode(mode).open(below)?;
        let metadata = file.metadata()?;
        let attributes = attributes(self.inode(path), &metadata);
        Ok((attributes, self.opened(file)))
    }

    fn make_folder(&mut self, parent: u64, name: &OsStr, mode: u32) -> io::Result<FileAttr> {
        self.refusing.is_asked(&self.refusing.writes)?;
        let (_, below) = self.child(parent, name)?;
        fs::DirBuilder::new().mode(mode).create(below)?;
        self.entry(parent, name)
    }

    fn link_file(&mut self, inode: u64, parent: u64, name: &OsStr) -> io::Result<FileAttr> {
        self.refusing.is_asked(&self.refusing.writes)?;
        let (_, below) = self.child(parent, name)?;
        fs::hard_link(self.path(inode)?, below)?;
        self.entry(parent, name)
    }

    fn rename_path(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> io::Result<()> {
        self.refusing.is_asked(&self.refusing.writes)?;
        let (old, old_below) = self.child(from.0, from.1)?;
        let (new, new_below) = self.child(to.0, to.1)?;
        fs::rename(old_below, new_below)?;
        self.forget_path(&new);
        // What lies in a folder moves with it.
        for (inode, path) in &mut self.paths {
            if let Ok(rest) = path.strip_prefix(&old) {
                self.inodes.remove(path);
                *path = if rest.as_os_str().is_empty() { new.clone() } else { new.join(rest) };
                self.inodes.insert(path.clone(), *inode);
            }
        }
        Ok(())
    }

    fn remove(&mut self, parent: u64, name: &OsStr, folder: bool) -> io::Result<()> {
        self.refusing.is_asked(&self.refusing.writes)?;
        let (path, below) = self.child(parent, name)?;
        if folder {
            fs::remove_dir(below)?
        } else {
            fs::remove_file(below)?
        }
        self.forget_path(&path);
        Ok(())
    }

    fn synced(&self, handle: u64, data_only: bool) -> io::Result<()> {
        self.refusing.is_asked(&self.refusing.syncs)?;
        let file = self.file(handle)?;
        if data_only { file.sync_data() } else { file.sync_all() }
    }

    fn list(&mut self, inode: u64) -> io::Result<Vec<(u64, FileType, std::ffi::OsString)>> {
        let folder = self.paths.get(&inode).cloned().ok_or(io::ErrorKind::NotFound)?;
        let mut list = vec![(inode, FileType::Directory, ".".into())];
        list.push((inode, FileType::Directory, "..".into()));
        for entry in fs::read_dir(self.below.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name();
            list.push((self.inode(folder.join(&name)), kind(entry.file_type()?), name));
        }
        Ok(list)
    }
}

fn options(flags: i32) -> OpenOptions {
    let flags = rustix::fs::OFlags::from_bits_retain(flags.cast_unsigned());
    let mut options = OpenOptions::new();
    let access = flags & rustix::fs::OFlags::RWMODE;
    options.read(access != rustix::fs::OFlags::WRONLY);
    options.write(access != rustix::fs::OFlags::RDONLY);
    // Offsets come with each write; O_APPEND would move them.
    options.truncate(flags.contains(rustix::fs::OFlags::TRUNC));
    options
}

fn kind(of: fs::FileType) -> FileType {
    match of {
        of if of.is_dir() => FileType::Directory,
        of if of.is_symlink() => FileType::Symlink,
        of if of.is_socket() => FileType::Socket,
        of if of.is_fifo() => FileType::NamedPipe,
        _ => FileType::RegularFile,
    }
}

fn attributes(inode: u64, metadata: &Metadata) -> FileAttr {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    FileAttr {
        ino: inode,
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: kind(metadata.file_type()),
        perm: u16::try_from(metadata.mode() & 0o7777).unwrap_or(0o600),
        nlink: short(metadata.nlink()),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: short(metadata.blksize()),
        flags: 0,
    }
}

/// What the kernel is told instead of an answer.
fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| match error.kind() {
        io::ErrorKind::NotFound => Errno::NOENT.raw_os_error(),
        _ => Errno::IO.raw_os_error(),
    })
}
