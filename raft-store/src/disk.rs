//! The one RocksDB of a member: options, column families, keys, and what happens when it fails.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, LogLevel, Options,
    ReadOptions, WriteBatch,
};
use tokio::sync::watch;

use crate::files::Lock;

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

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Log,
    Meta,
    Ledger,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Log => LOG,
            Self::Meta => META,
            Self::Ledger => LEDGER,
        }
    }
}

/// Changes that are written together or not at all.
pub(crate) struct Batch<'d>(Changes<'d>);

enum Changes<'d> {
    Rocks {
        batch: WriteBatch,
        /// In the order of [`Family`].
        families: [&'d ColumnFamily; 3],
    },
    #[cfg(feature = "sim")]
    Simulated(Vec<crate::sim::Change>),
}

impl Batch<'_> {
    pub(crate) fn put(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        match &mut self.0 {
            Changes::Rocks { batch, families } => {
                batch.put_cf(families[family as usize], key, value);
            }
            #[cfg(feature = "sim")]
            Changes::Simulated(changes) => {
                changes.push(crate::sim::Change::put(family, key.as_ref(), value.as_ref()));
            }
        }
    }

    pub(crate) fn delete(&mut self, family: Family, key: impl AsRef<[u8]>) {
        match &mut self.0 {
            Changes::Rocks { batch, families } => batch.delete_cf(families[family as usize], key),
            #[cfg(feature = "sim")]
            Changes::Simulated(changes) => {
                changes.push(crate::sim::Change::delete(family, key.as_ref()));
            }
        }
    }

    /// Deletes the rows of the indexes `from..end`.
    pub(crate) fn delete_range(&mut self, family: Family, from: u64, end: u64) {
        let (from, end) = (index_key(from), index_key(end));
        match &mut self.0 {
            Changes::Rocks { batch, families } => {
                batch.delete_range_cf(families[family as usize], from, end);
            }
            #[cfg(feature = "sim")]
            Changes::Simulated(changes) => {
                changes.push(crate::sim::Change::delete_range(family, from, end));
            }
        }
    }
}

/// Where the rows lie.
enum Engine {
    Rocks(DB),
    /// In memory, with faults on demand.
    #[cfg(feature = "sim")]
    Simulated(crate::sim::Mount),
}

/// RocksDB with its folder, shared by all parts of the store.
pub(crate) struct Disk {
    engine: Engine,
    dir: PathBuf,
    fatal: watch::Sender<Option<String>>,
    /// Holds the lock on the data folder for as long as RocksDB is open.
    _lock: Lock,
}

impl Disk {
    /// Opens `dir/db`. `lock` is the locked file of the data folder.
    pub(crate) fn open(dir: &Path, lock: Lock) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if let Some(mount) = crate::sim::mount(dir) {
            mount.open()?;
            let fatal = watch::Sender::new(None);
            let engine = Engine::Simulated(mount);
            return Ok(Self { engine, dir: dir.to_owned(), fatal, _lock: lock });
        }
        Self::open_database(dir, lock)
            .map_err(|error| io::Error::new(kind_of(&error), one_line(error.as_ref())))
    }

    /// Opens `dir/db` without writing to it. `lock` is the locked file of the data folder.
    pub(crate) fn open_read_only(dir: &Path, lock: Lock) -> io::Result<Self> {
        let open = || {
            let path = dir.join("db");
            DB::open_cf_for_read_only(&database_options()?, path, [LOG, META, LEDGER], false)
        };
        let db = open().map_err(|error: rocksdb::Error| {
            io::Error::new(kind_of(&error), one_line(error.as_ref()))
        })?;
        let (engine, fatal) = (Engine::Rocks(db), watch::Sender::new(None));
        Ok(Self { engine, dir: dir.to_owned(), fatal, _lock: lock })
    }

    fn open_database(dir: &Path, lock: Lock) -> Result<Self, rocksdb::Error> {
        let families = [(LOG, 64), (META, 4), (LEDGER, 16)]
            .map(|(name, mebibytes)| ColumnFamilyDescriptor::new(name, family_options(mebibytes)));
        let db = DB::open_cf_descriptors(&database_options()?, dir.join("db"), families)?;
        let fatal = watch::Sender::new(None);
        Ok(Self { engine: Engine::Rocks(db), dir: dir.to_owned(), fatal, _lock: lock })
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

    fn failed(&self, what: &str, error: &io::Error) -> io::Error {
        let reason = format!("{what} {}: {error}", self.dir.display());
        self.fail(&reason);
        io::Error::new(error.kind(), one_line(&reason))
    }

    fn rocks(&self) -> io::Result<&DB> {
        match &self.engine {
            Engine::Rocks(db) => Ok(db),
            #[cfg(feature = "sim")]
            Engine::Simulated(_) => Err(io::Error::other("the disk is simulated")),
        }
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> io::Result<Batch<'_>> {
        match &self.engine {
            Engine::Rocks(db) => {
                let families = [
                    family(db, Family::Log)?,
                    family(db, Family::Meta)?,
                    family(db, Family::Ledger)?,
                ];
                Ok(Batch(Changes::Rocks { batch: WriteBatch::default(), families }))
            }
            #[cfg(feature = "sim")]
            Engine::Simulated(_) => Ok(Batch(Changes::Simulated(Vec::new()))),
        }
    }

    /// Hands a batch to the operating system, in order but not yet durable.
    pub(crate) fn write(&self, batch: Batch<'_>) -> io::Result<()> {
        self.check()?;
        let written = match (&self.engine, batch.0) {
            (Engine::Rocks(db), Changes::Rocks { batch, .. }) => db.write(batch).map_err(of_rocks),
            #[cfg(feature = "sim")]
            (Engine::Simulated(mount), Changes::Simulated(changes)) => mount.write(changes),
            #[cfg(feature = "sim")]
            _ => Err(io::Error::other("a batch of another disk")),
        };
        written.map_err(|error| self.failed("write to", &error))
    }

    /// Makes everything that was written durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.check()?;
        let flushed = match &self.engine {
            Engine::Rocks(db) => db.flush_wal(true).map_err(of_rocks),
            #[cfg(feature = "sim")]
            Engine::Simulated(mount) => mount.flush(),
        };
        flushed.map_err(|error| self.failed("flush", &error))
    }

    pub(crate) fn get(&self, from: Family, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let got = match &self.engine {
            Engine::Rocks(db) => db.get_cf(family(db, from)?, key).map_err(of_rocks),
            #[cfg(feature = "sim")]
            Engine::Simulated(mount) => mount.get(from, key),
        };
        got.map_err(|error| self.failed("read", &error))
    }

    /// Walks over the indexes `from..end` that are there, in order, until `visit` says stop.
    pub(crate) fn scan(
        &self,
        of: Family,
        from: u64,
        end: u64,
        mut visit: impl FnMut(u64, &[u8]) -> io::Result<bool>,
    ) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if let Engine::Simulated(mount) = &self.engine {
            for (key, value) in mount.rows(of, from, end) {
                let value = value.map_err(|error| self.failed("read", &error))?;
                if !visit(key_index(&key)?, &value)? {
                    break;
                }
            }
            return Ok(());
        }
        let db = self.rocks()?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(index_key(end));
        let mut rows = db.raw_iterator_cf_opt(family(db, of)?, options);
        rows.seek(index_key(from));
        while let Some((key, value)) = rows.item() {
            if !visit(key_index(key)?, value)? {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| self.failed("read", &of_rocks(error)))
    }

    /// The first and the last index of a column family with their values.
    #[expect(clippy::type_complexity, reason = "two optional rows")]
    pub(crate) fn ends(
        &self,
        of: Family,
        from: u64,
    ) -> io::Result<(Option<(u64, Vec<u8>)>, Option<(u64, Vec<u8>)>)> {
        #[cfg(feature = "sim")]
        if let Engine::Simulated(mount) = &self.engine {
            let read = |(key, value): (Vec<u8>, io::Result<Vec<u8>>)| {
                let value = value.map_err(|error| self.failed("read", &error))?;
                Ok::<_, io::Error>((key_index(&key)?, value))
            };
            let mut rows = mount.rows(of, from, u64::MAX);
            let last = rows.pop().map(read).transpose()?;
            let first = rows.into_iter().next().map(read).transpose()?;
            return Ok((first.or_else(|| last.clone()), last));
        }
        let db = self.rocks()?;
        let mut rows = db.raw_iterator_cf(family(db, of)?);
        let mut found = [None, None];
        rows.seek(index_key(from));
        if let Some((key, value)) = rows.item() {
            found[0] = Some((key_index(key)?, value.to_vec()));
            rows.seek_to_last();
            if let Some((key, value)) = rows.item() {
                found[1] = Some((key_index(key)?, value.to_vec()));
            }
        }
        rows.status().map_err(|error| self.failed("read", &of_rocks(error)))?;
        let [first, last] = found;
        Ok((first, last))
    }

    /// Gives back the room of whole files below `end`. What they held must have
    /// been removed durably before.
    pub(crate) fn drop_files(&self, of: Family, end: u64) {
        let dropped = match &self.engine {
            Engine::Rocks(db) => family(db, of).and_then(|family| {
                let (from, end) = (index_key(0), index_key(end));
                db.delete_file_in_range_cf(family, from, end).map_err(of_rocks)
            }),
            #[cfg(feature = "sim")]
            Engine::Simulated(_) => Ok(()),
        };
        if let Err(error) = dropped {
            tracing::warn!(%error, "room of purged entries was not given back");
        }
    }

    /// The simulated device, if it is one.
    #[cfg(feature = "sim")]
    pub(crate) fn mount(&self) -> Option<&crate::sim::Mount> {
        match &self.engine {
            Engine::Rocks(_) => None,
            Engine::Simulated(mount) => Some(mount),
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn family(db: &DB, family: Family) -> io::Result<&ColumnFamily> {
    let name = family.name();
    db.cf_handle(name).ok_or_else(|| io::Error::other(format!("no column family {name}")))
}

fn of_rocks(error: rocksdb::Error) -> io::Error {
    io::Error::new(kind_of(&error), error)
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
    #[cfg(feature = "sim")]
    if crate::sim::sabotaged(crate::sim::Sabotage::PointInTime) {
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    }
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
