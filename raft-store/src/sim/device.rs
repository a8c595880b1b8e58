//! What a machine keeps when its power goes, and the faults that it can have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::tables::{Change, Tables};
use super::{ROOT, Sabotage, register, sabotaged};
use crate::disk::Family;

/// Flushed batches that a lying disk may still lose.
const RECENT_MAX: usize = 64;

/// After so long the guard file tells of an entry.
const GUARD_KNOWS: Duration = Duration::from_millis(1_500);

/// What a disk can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The next write fails.
    WriteFails,
    /// The next flush fails, and what it was to make durable may be lost in part.
    SyncFails,
    /// Every write fails until [`Device::free`].
    Full,
    /// The next write of a small file fails; one that is written in place is torn.
    FileFails,
    /// Flushes take a hundred times as long until [`Device::free`].
    Slow,
    /// A bit of a row that was flushed flips, as its checksum will tell whoever reads it.
    RowFlips,
    /// A bit of the newest raft snapshot's file flips.
    SnapshotFlips,
    /// In the next crash the disk loses batches that it had confirmed as flushed.
    SuffixLost,
}

/// What a flush covers. There is one write-ahead log, unless it was sabotaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    /// Entries and rows.
    Log,
    /// Votes and markers.
    Votes,
}

#[derive(Debug)]
struct Inner {
    name: String,
    random: fastrand::Rng,
    boot: u64,
    is_on: bool,
    /// What is there as the running member sees it.
    visible: Tables,
    /// What was flushed, but for `recent`.
    durable: Tables,
    /// Flushed since, oldest first.
    recent: VecDeque<(Instant, Vec<Change>)>,
    /// Written and not flushed, oldest first.
    pending: VecDeque<Vec<Change>>,
    /// The same of votes and markers, when a sabotage gives them a log of their own.
    pending_votes: VecDeque<Vec<Change>>,
    /// How many of `pending` and of `pending_votes` the flush covers that has begun.
    covered: Option<(usize, usize)>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    made: bool,
    damaged: BTreeSet<(Family, Vec<u8>)>,
    armed: BTreeSet<Fault>,
    took_effect: BTreeMap<Fault, u64>,
    /// Writes lost in crashes.
    lost: u64,
}

/// A machine's disk. Cheap to clone.
#[derive(Clone)]
pub struct Device(Arc<Mutex<Inner>>);

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Device").field("name", &inner.name).field("boot", &inner.boot).finish()
    }
}

fn error(kind: io::ErrorKind, reason: &str) -> io::Error {
    io::Error::new(kind, format!("simulated: {reason}"))
}

impl Device {
    /// An empty disk of this thread. `name` is a path's part, and `seed` decides what a crash
    /// leaves of what was not flushed.
    pub fn new(name: &str, seed: u64) -> Self {
        let device = Self(Arc::new(Mutex::new(Inner {
            name: name.to_owned(),
            random: fastrand::Rng::with_seed(seed),
            boot: 0,
            is_on: false,
            visible: Tables::default(),
            durable: Tables::default(),
            recent: VecDeque::new(),
            pending: VecDeque::new(),
            pending_votes: VecDeque::new(),
            covered: None,
            files: BTreeMap::new(),
            made: false,
            damaged: BTreeSet::new(),
            armed: BTreeSet::new(),
            took_effect: BTreeMap::new(),
            lost: 0,
        })));
        register(name, &device);
        device
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches the machine on; returns the data folder for [`crate::open`].
    pub fn boot(&self) -> PathBuf {
        let mut inner = self.lock();
        inner.boot += 1;
        inner.is_on = true;
        Path::new(ROOT).join(&inner.name).join(inner.boot.to_string())
    }

    /// Ends the running member as `kill -9` does: the operating system has what was written.
    pub fn kill(&self) {
        self.lock().is_on = false;
    }

    /// Cuts the power: of what was not flushed, a random first part is left.
    pub fn cut_power(&self) {
        let mut inner = self.lock();
        inner.is_on = false;
        inner.covered = None;
        let written = inner.pending.len();
        let kept = inner.random_upto(written);
        inner.lost += (written - kept) as u64;
        inner.pending.truncate(kept);
        if sabotaged(Sabotage::TwoLogs) {
            let written = inner.pending_votes.len();
            let kept = inner.random_upto(written);
            inner.pending_votes.truncate(kept);
        }
        if sabotaged(Sabotage::PointInTime) {
            inner.forget_the_newest();
        }
        if let Some(from) = inner.known_entry().filter(|_| inner.armed.remove(&Fault::SuffixLost)) {
            inner.pending.clear();
            inner.recent.truncate(from);
            inner.count(Fault::SuffixLost);
        }
        inner.confirm(usize::MAX, usize::MAX);
        let mut visible = inner.durable.clone();
        inner.recent.iter().for_each(|(_, changes)| visible.apply(changes));
        inner.visible = visible;
    }

    /// Arms a fault, or damages at once what lies there.
    pub fn arm(&self, fault: Fault) {
        let mut inner = self.lock();
        match fault {
            Fault::RowFlips => inner.flip_row(),
            Fault::SnapshotFlips => inner.flip_snapshot(),
            fault => {
                inner.armed.insert(fault);
            }
        }
    }

    /// Ends what lasts: there is room again, and speed; what was armed and did not happen will not.
    pub fn free(&self) {
        self.lock().armed.clear();
    }

    /// How often each fault took effect.
    pub fn took_effect(&self) -> BTreeMap<Fault, u64> {
        self.lock().took_effect.clone()
    }

    /// How many batches were lost in power cuts, as disks may.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// An empty disk in the place of this one.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        inner.is_on = false;
        (inner.visible, inner.durable) = (Tables::default(), Tables::default());
        inner.recent.clear();
        inner.pending.clear();
        inner.pending_votes.clear();
        inner.covered = None;
        inner.files.clear();
        inner.damaged.clear();
        inner.armed.clear();
        inner.made = false;
    }
}

impl Inner {
    fn random_upto(&mut self, max: usize) -> usize {
        self.random.usize(..=max)
    }

    fn count(&mut self, fault: Fault) {
        *self.took_effect.entry(fault).or_default() += 1;
    }

    /// The oldest writes, so many of each log, are durable.
    fn confirm(&mut self, count: usize, votes: usize) {
        let now = Instant::now();
        let votes = votes.min(self.pending_votes.len());
        self.recent.extend(self.pending_votes.drain(..votes).map(|changes| (now, changes)));
        let count = count.min(self.pending.len());
        self.recent.extend(self.pending.drain(..count).map(|changes| (now, changes)));
        while self.recent.len() > RECENT_MAX {
            if let Some((_, oldest)) = self.recent.pop_front() {
                self.durable.apply(&oldest);
            }
        }
    }

    /// The newest flushed batch with an entry that is still there and of which the guard
    /// file must know: its index may lag by a second, and less than that is not noticed.
    fn known_entry(&self) -> Option<usize> {
        self.recent.iter().rposition(|(at, changes)| {
            at.elapsed() > GUARD_KNOWS
                && changes.iter().any(|change| match change {
                    Change::Put(Family::Log, key, value) => {
                        self.visible.family(Family::Log).get(key) == Some(value)
                    }
                    _ => false,
                })
        })
    }

    /// What a recovery up to a point in time makes of a damaged record: it was the last one,
    /// although what follows was flushed. The guard file need not know of it yet.
    fn forget_the_newest(&mut self) {
        let known = self.known_entry().map_or(0, |newest| newest + 1);
        let kept = self.random.usize(known..=self.recent.len());
        self.lost += (self.recent.len() - kept) as u64;
        self.recent.truncate(kept);
        self.pending.clear();
    }

    fn flip_row(&mut self) {
        let families = [Family::Log, Family::Ledger];
        let family = families[self.random_upto(1)];
        let keys: Vec<_> = self.durable.family(family).keys().cloned().collect();
        if let Some(last) = keys.len().checked_sub(1) {
            let key = keys[self.random_upto(last)].clone();
            self.damaged.insert((family, key));
        }
    }

    fn flip_snapshot(&mut self) {
        let Some(path) = self.files.keys().rfind(|path| is_snapshot(path)).cloned() else { return };
        let length = self.files[&path].len();
        let bit = self.random_upto(length * 8 - 1);
        if let Some(bytes) = self.files.get_mut(&path) {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        self.count(Fault::SnapshotFlips);
    }
}

fn is_snapshot(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "snap")
}

/// A device as one boot of its machine sees it.
#[derive(Clone, Debug)]
pub(crate) struct Mount {
    device: Device,
    boot: u64,
}

impl Mount {
    pub(super) fn new(device: Device, boot: u64) -> Self {
        Self { device, boot }
    }

    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.device.lock();
        if !inner.is_on || inner.boot != self.boot {
            return Err(error(io::ErrorKind::BrokenPipe, "the power is off"));
        }
        Ok(inner)
    }

    /// An error when this boot has ended.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.inner().map(drop)
    }

    /// RocksDB makes what it finds durable when it opens.
    pub(crate) fn open(&self) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.made = true;
        inner.confirm(usize::MAX, usize::MAX);
        Ok(())
    }

    pub(crate) fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let mut inner = self.inner()?;
        if inner.armed.contains(&Fault::Full) {
            inner.count(Fault::Full);
            return Err(error(io::ErrorKind::StorageFull, "no space left on device"));
        }
        if inner.armed.remove(&Fault::WriteFails) {
            inner.count(Fault::WriteFails);
            return Err(error(io::ErrorKind::Other, "input/output error"));
        }
        for change in &changes {
            if let Change::Put(family, key, _) = change {
                inner.damaged.remove(&(*family, key.clone()));
            }
        }
        inner.visible.apply(&changes);
        if sabotaged(Sabotage::TwoLogs) {
            let (votes, rows): (Vec<_>, _) =
                changes.into_iter().partition(|change| change.family() == Family::Meta);
            inner.pending_votes.extend(Some(votes).filter(|votes| !votes.is_empty()));
            inner.pending.extend(Some(rows).filter(|rows: &Vec<_>| !rows.is_empty()));
        } else {
            inner.pending.push_back(changes);
        }
        Ok(())
    }

    /// The flush that follows covers what was written before this call.
    pub(crate) fn begin_flush(&self, part: Part) {
        if let Ok(mut inner) = self.inner() {
            let rows = if part == Part::Votes { 0 } else { inner.pending.len() };
            let votes = if part == Part::Log { 0 } else { inner.pending_votes.len() };
            inner.covered = Some((rows, votes));
        }
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        let mut inner = self.inner()?;
        let (rows, votes) = inner.covered.take().unwrap_or((usize::MAX, usize::MAX));
        if inner.armed.remove(&Fault::SyncFails) {
            inner.count(Fault::SyncFails);
            return Err(error(io::ErrorKind::Other, "fdatasync: input/output error"));
        }
        inner.confirm(rows, votes);
        Ok(())
    }

    /// How long a flush takes.
    pub(crate) fn sync_delay(&self) -> Duration {
        let Ok(mut inner) = self.inner() else { return Duration::ZERO };
        let micros = inner.random.u64(50..2_000);
        if inner.armed.contains(&Fault::Slow) {
            inner.count(Fault::Slow);
            return Duration::from_micros(micros * 100);
        }
        Duration::from_micros(micros)
    }

    /// How long what follows a flush waits: room for a crash between the two.
    pub(crate) fn gap(&self) -> Duration {
        let Ok(mut inner) = self.inner() else { return Duration::ZERO };
        Duration::from_micros(inner.random.u64(0..200))
    }

    fn read_row(
        inner: &mut Inner,
        family: Family,
        key: &[u8],
        value: &[u8],
    ) -> io::Result<Vec<u8>> {
        if inner.damaged.contains(&(family, key.to_vec())) {
            inner.count(Fault::RowFlips);
            let reason = "checksum mismatch of a stored row";
            return Err(error(io::ErrorKind::InvalidData, reason));
        }
        Ok(value.to_vec())
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut inner = self.inner()?;
        let Some(value) = inner.visible.family(family).get(key).cloned() else { return Ok(None) };
        Self::read_row(&mut inner, family, key, &value).map(Some)
    }

    /// The rows of the indexes `from..end`; each may be damaged.
    pub(crate) fn rows(
        &self,
        family: Family,
        from: u64,
        end: u64,
    ) -> Vec<(Vec<u8>, io::Result<Vec<u8>>)> {
        let mut inner = match self.inner() {
            Ok(inner) => inner,
            Err(error) => return vec![(vec![0; 8], Err(error))],
        };
        let rows: Vec<_> = inner
            .visible
            .rows(family, from, end)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        rows.into_iter()
            .map(|(key, value)| {
                let read = Self::read_row(&mut inner, family, &key, &value);
                (key, read)
            })
            .collect()
    }

    /// The path within the device.
    fn within(&self, path: &Path) -> PathBuf {
        let name = self.device.lock().name.clone();
        let boot = Path::new(ROOT).join(name).join(self.boot.to_string());
        path.strip_prefix(boot).unwrap_or(path).to_owned()
    }

    /// The fault that a write of a file has.
    fn file_fault(inner: &mut Inner) -> io::Result<()> {
        if inner.armed.contains(&Fault::Full) {
            inner.count(Fault::Full);
            return Err(error(io::ErrorKind::StorageFull, "no space left on device"));
        }
        if inner.armed.remove(&Fault::FileFails) {
            inner.count(Fault::FileFails);
            return Err(error(io::ErrorKind::Other, "input/output error"));
        }
        Ok(())
    }

    pub(crate) fn replace_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = self.within(path);
        let mut inner = self.inner()?;
        let failed = Self::file_fault(&mut inner);
        // What failed in the end may have happened.
        if failed.is_ok() || inner.random.bool() {
            inner.files.insert(path, bytes.to_vec());
        }
        failed
    }

    pub(crate) fn write_file_at(&self, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        let path = self.within(path);
        let mut inner = self.inner()?;
        let failed = Self::file_fault(&mut inner);
        let written = match failed {
            Ok(()) => bytes.len(),
            Err(_) => inner.random_upto(bytes.len()),
        };
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let file = inner.files.entry(path).or_default();
        file.resize(file.len().max(start + bytes.len()), 0);
        file[start..start + written].copy_from_slice(&bytes[..written]);
        failed
    }

    pub(crate) fn read_file(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let path = self.within(path);
        Ok(self.inner()?.files.get(&path).cloned())
    }

    pub(crate) fn exists(&self, path: &Path) -> io::Result<bool> {
        let path = self.within(path);
        let inner = self.inner()?;
        Ok(inner.files.contains_key(&path) || (inner.made && path == Path::new("db")))
    }

    pub(crate) fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let within = self.within(folder);
        let inner = self.inner()?;
        let names = inner.files.keys().filter_map(|path| path.strip_prefix(&within).ok());
        Ok(names.map(|name| folder.join(name)).collect())
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.within(from), self.within(to));
        let mut inner = self.inner()?;
        let bytes = inner.files.remove(&from).ok_or(io::ErrorKind::NotFound)?;
        inner.files.insert(to, bytes);
        Ok(())
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let path = self.within(path);
        self.inner()?.files.remove(&path);
        Ok(())
    }
}
