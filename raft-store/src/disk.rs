//! The one RocksDB of a member: options, column families, keys, and what happens when it fails.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, LogLevel, Options,
    ReadOptions, WriteBatch,
};
use tokio::sync::watch;

/// The log: big-endian index to entry.
const LOG: &str = "log";
/// Vote, committed and purged markers, the ledger's segments.
const META: &str = "meta";
/// The ledger: big-endian index to row.
const LEDGER: &str = "ledger";

/// Keys of the column family `meta`.
pub(crate) mod key {
    pub(crate) const VOTE: &[u8] = b"vote";
    pub(crate) const COMMITTED: &[u8] = b"committed";
    pub(crate) const PURGED: &[u8] = b"purged";
    pub(crate) const LEDGER: &[u8] = b"ledger";
    /// Present once a membership of the log held this disk's incarnation.
    pub(crate) const NAMED: &[u8] = b"named";
}

/// RocksDB with its folder, shared by all parts of the store.
pub(crate) struct Disk {
    db: DB,
    dir: PathBuf,
    fatal: watch::Sender<Option<String>>,
    /// Holds the lock on the data folder for as long as RocksDB is open.
    _lock: File,
}

impl Disk {
    /// Opens `dir/db`. `lock` is the locked file of the data folder.
    pub(crate) fn open(dir: &Path, lock: File) -> io::Result<Self> {
        Self::open_database(dir, lock)
            .map_err(|error| io::Error::new(kind_of(&error), one_line(error.as_ref())))
    }

    /// Opens `dir/db` without writing to it. `lock` is the locked file of the data folder.
    pub(crate) fn open_read_only(dir: &Path, lock: File) -> io::Result<Self> {
        let open = || {
            let path = dir.join("db");
            DB::open_cf_for_read_only(&database_options()?, path, [LOG, META, LEDGER], false)
        };
        let db = open().map_err(|error: rocksdb::Error| {
            io::Error::new(kind_of(&error), one_line(error.as_ref()))
        })?;
        Ok(Self { db, dir: dir.to_owned(), fatal: watch::Sender::new(None), _lock: lock })
    }

    fn open_database(dir: &Path, lock: File) -> Result<Self, rocksdb::Error> {
        let families = [(LOG, 64), (META, 4), (LEDGER, 16)]
            .map(|(name, mebibytes)| ColumnFamilyDescriptor::new(name, family_options(mebibytes)));
        let db = DB::open_cf_descriptors(&database_options()?, dir.join("db"), families)?;
        let fatal = watch::Sender::new(None);
        Ok(Self { db, dir: dir.to_owned(), fatal, _lock: lock })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Changes once, when this process must end.
    pub(crate) fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// Says that nothing more may be acknowledged; the first reason stays.
    pub(crate) fn fail(&self, reason: impl fmt::Display) {
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            if first {
                let reason = one_line(&reason.to_string());
                tracing::error!(dir = %self.dir.display(), reason, "raft store failed");
                *fatal = Some(reason);
            }
            first
        });
    }

    /// An error once [`Self::fail`] was called.
    pub(crate) fn check(&self) -> io::Result<()> {
        match &*self.fatal.borrow() {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    fn failed(&self, what: &str, error: &rocksdb::Error) -> io::Error {
        let reason = format!("{what} {}: {error}", self.dir.display());
        self.fail(&reason);
        io::Error::new(kind_of(error), one_line(&reason))
    }

    fn family(&self, name: &str) -> io::Result<&ColumnFamily> {
        self.db.cf_handle(name).ok_or_else(|| io::Error::other(format!("no column family {name}")))
    }

    pub(crate) fn log(&self) -> io::Result<&ColumnFamily> {
        self.family(LOG)
    }

    pub(crate) fn meta(&self) -> io::Result<&ColumnFamily> {
        self.family(META)
    }

    pub(crate) fn ledger(&self) -> io::Result<&ColumnFamily> {
        self.family(LEDGER)
    }

    /// Hands a batch to the operating system, in order but not yet durable.
    pub(crate) fn write(&self, batch: WriteBatch) -> io::Result<()> {
        self.check()?;
        self.db.write(batch).map_err(|error| self.failed("write to", &error))
    }

    /// Makes everything that was written durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.check()?;
        self.db.flush_wal(true).map_err(|error| self.failed("flush", &error))
    }

    pub(crate) fn get(&self, family: &ColumnFamily, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.db.get_cf(family, key).map_err(|error| self.failed("read", &error))
    }

    /// Walks over the indexes `from..end` that are there, in order, until `visit` says stop.
    pub(crate) fn scan(
        &self,
        family: &ColumnFamily,
        from: u64,
        end: u64,
        mut visit: impl FnMut(u64, &[u8]) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(index_key(end));
        let mut rows = self.db.raw_iterator_cf_opt(family, options);
        rows.seek(index_key(from));
        while let Some((key, value)) = rows.item() {
            if !visit(key_index(key)?, value)? {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| self.failed("read", &error))
    }

    /// The first and the last index of a column family with their values.
    #[expect(clippy::type_complexity, reason = "two optional rows")]
    pub(crate) fn ends(
        &self,
        family: &ColumnFamily,
        from: u64,
    ) -> io::Result<(Option<(u64, Vec<u8>)>, Option<(u64, Vec<u8>)>)> {
        let mut rows = self.db.raw_iterator_cf(family);
        let mut found = [None, None];
        rows.seek(index_key(from));
        if let Some((key, value)) = rows.item() {
            found[0] = Some((key_index(key)?, value.to_vec()));
            rows.seek_to_last();
            if let Some((key, value)) = rows.item() {
                found[1] = Some((key_index(key)?, value.to_vec()));
            }
        }
        rows.status().map_err(|error| self.failed("read", &error))?;
        let [first, last] = found;
        Ok((first, last))
    }

    /// Gives back the room of whole files below `end`. What they held must have
    /// been removed durably before.
    pub(crate) fn drop_files(&self, family: &ColumnFamily, end: u64) {
        if let Err(error) = self.db.delete_file_in_range_cf(family, index_key(0), index_key(end)) {
            tracing::warn!(%error, "room of purged entries was not given back");
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// The key of an index: big-endian, so that order by key is order by index.
pub(crate) fn index_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

fn key_index(key: &[u8]) -> io::Result<u64> {
    match key.try_into() {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a key of {} bytes, not 8", key.len()),
        )),
    }
}

/// `InvalidData` for what RocksDB calls corruption; a full disk is not a damaged one.
fn kind_of(error: &rocksdb::Error) -> io::ErrorKind {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    }
}

/// Messages of RocksDB span lines; ours do not.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn database_options() -> Result<Options, rocksdb::Error> {
    // An input/output error stays: RocksDB would retry in the background, and a
    // retried fsync may lie. The setter is missing, and this call makes a new
    // object, so it comes first.
    let mut options = Options::default().get_options_from_string("max_bgerror_resume_count=0")?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A damaged middle is refused; a record torn by a crash was never acknowledged.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_wal_bytes_per_sync(0);
    options.set_use_fsync(false);
    options.set_max_total_wal_size(256 * 1_024 * 1_024);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(4 * 1_024 * 1_024);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    Ok(options)
}

/// `mebibytes` are held in memory before they go to a file of their own.
fn family_options(mebibytes: usize) -> Options {
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(mebibytes * 1_024 * 1_024);
    options
}
