//! What the kernel asks of the file system, and what it is told.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime};

use fuser::{
    Filesystem, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{Through, number, options};

/// Nothing is remembered by the kernel: the folder below may be another one soon.
const NEVER: Duration = Duration::ZERO;
/// `FALLOC_FL_KEEP_SIZE` and `FALLOC_FL_PUNCH_HOLE`.
const FALLOCATE_MODES: i32 = 0x03;

/// Answers with what was found, or with the error.
macro_rules! answer {
    ($result:expr, $reply:ident, $found:pat => $say:expr) => {
        match $result {
            Ok($found) => $say,
            Err(error) => $reply.error(number(&error)),
        }
    };
}

impl Filesystem for Through {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        answer!(self.entry(parent, name), reply, found => reply.entry(&NEVER, &found, 0));
    }

    fn getattr(&mut self, _: &Request<'_>, inode: u64, reply: ReplyAttr) {
        answer!(self.resized(inode, None, None), reply, found => reply.attr(&NEVER, &found));
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<u64>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<u32>,
        reply: ReplyAttr,
    ) {
        answer!(self.resized(inode, size, handle), reply, found => reply.attr(&NEVER, &found));
    }

    fn mkdir(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        answer!(self.make_folder(parent, name, mode), reply, made => reply.entry(&NEVER, &made, 0));
    }

    fn unlink(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        answer!(self.remove(parent, name, false), reply, () => reply.ok());
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        answer!(self.remove(parent, name, true), reply, () => reply.ok());
    }

    fn rename(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        _flags: u32,
        reply: ReplyEmpty,
    ) {
        let renamed = self.rename_path((parent, name), (new_parent, new_name));
        answer!(renamed, reply, () => reply.ok());
    }

    fn link(&mut self, _: &Request<'_>, inode: u64, parent: u64, name: &OsStr, reply: ReplyEntry) {
        answer!(self.link_file(inode, parent, name), reply, made => reply.entry(&NEVER, &made, 0));
    }

    fn open(&mut self, _: &Request<'_>, inode: u64, flags: i32, reply: ReplyOpen) {
        let file = self.path(inode).and_then(|path| options(flags).open(path));
        answer!(file, reply, file => reply.opened(self.opened(file), 0));
    }

    fn create(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.create_file(parent, name, mode, flags);
        answer!(created, reply, (made, handle) => reply.created(&NEVER, &made, 0, handle, 0));
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _inode: u64,
        handle: u64,
        offset: i64,
        size: u32,
        _flags: i32,
        _lock: Option<u64>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        let read = self.file(handle).and_then(|file| {
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset.cast_unsigned() + filled as u64)? {
                    0 => break,
                    more => filled += more,
                }
            }
            Ok(())
        });
        answer!(read, reply, () => reply.data(bytes.get(..filled).unwrap_or_default()));
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _inode: u64,
        handle: u64,
        offset: i64,
        bytes: &[u8],
        _write_flags: u32,
        _flags: i32,
        _lock: Option<u64>,
        reply: ReplyWrite,
    ) {
        let asked = self.refusing.is_asked(&self.refusing.writes);
        let written =
            asked.and_then(|()| self.file(handle)?.write_all_at(bytes, offset.cast_unsigned()));
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        answer!(written, reply, () => reply.written(length));
    }

    fn flush(&mut self, _: &Request<'_>, _inode: u64, _handle: u64, _lock: u64, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &mut self,
        _: &Request<'_>,
        _inode: u64,
        handle: u64,
        _flags: i32,
        _lock: Option<u64>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.open.remove(&handle);
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, _inode: u64, handle: u64, data: bool, reply: ReplyEmpty) {
        answer!(self.synced(handle, data), reply, () => reply.ok());
    }

    fn fsyncdir(&mut self, _: &Request<'_>, inode: u64, _handle: u64, _: bool, reply: ReplyEmpty) {
        let asked = self.refusing.is_asked(&self.refusing.syncs);
        let synced = asked.and_then(|()| File::open(self.path(inode)?)?.sync_all());
        answer!(synced, reply, () => reply.ok());
    }

    fn readdir(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _handle: u64,
        offset: i64,
        mut reply: ReplyDirectory,
    ) {
        let skipped = usize::try_from(offset).unwrap_or_default();
        answer!(self.list(inode), reply, list => {
            for (place, (inode, kind, name)) in (1..).zip(list).skip(skipped) {
                if reply.add(inode, place, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&mut self, _: &Request<'_>, _inode: u64, reply: ReplyStatfs) {
        let said = statvfs(&self.below).map_err(io::Error::from);
        answer!(said, reply, of => {
            let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            let (block, name, fragment) = (short(of.f_bsize), short(of.f_namemax), short(of.f_frsize));
            reply.statfs(of.f_blocks, of.f_bfree, of.f_bavail, of.f_files, of.f_ffree, block, name, fragment);
        });
    }

    fn fallocate(
        &mut self,
        _: &Request<'_>,
        _inode: u64,
        handle: u64,
        offset: i64,
        length: i64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain((mode & FALLOCATE_MODES).cast_unsigned());
        let (offset, length) = (offset.cast_unsigned(), length.cast_unsigned());
        let asked = self.refusing.is_asked(&self.refusing.writes);
        let done = asked.and_then(|()| Ok(fallocate(self.file(handle)?, mode, offset, length)?));
        answer!(done, reply, () => reply.ok());
    }
}
