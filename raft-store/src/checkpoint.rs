//! What this member held at marked indexes, so that members can compare.
//!
//! Every so many entries the state is kept for a while: a clone of persistent maps. Its
//! digest is computed when somebody asks, from what changed since the last one. A
//! committed checkpoint says what a majority held; who held something else has diverged, and
//! says so in its folder, too: a restart makes no state right.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_routing::Digest;
use dovetail_routing::state::{Digester, State};
use tokio::sync::watch;

use crate::files;
use crate::ledger::LedgerHash;

/// Marks kept: the leader asks for one within seconds.
const MARKS_MAX: usize = 16;
/// Where a divergence is written down, in the data folder.
pub(crate) const FILE: &str = "diverged";
const MAGIC: &[u8; 8] = b"DVTLDIV1";
/// Two indexes and four hashes.
const FILE_BYTES: usize = 2 * 8 + 4 * 32;

/// What a member held at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub index: u64,
    pub state: Digest,
    pub ledger: LedgerHash,
}

/// A committed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The index of its entry.
    pub at: u64,
    /// What a majority held.
    pub held: Held,
}

/// This member held something else than a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diverged {
    pub committed: Committed,
    /// What this member held there.
    pub own: Held,
}

impl fmt::Display for Diverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (committed, own) = (&self.committed, &self.own);
        let what = if committed.held.ledger == own.ledger { "state" } else { "ledger" };
        write!(
            f,
            "its {what} at index {} differs from the majority's (checkpoint {}): it serves nobody, \
             and its files are kept: replace it (dovetail member replace)",
            own.index, committed.at
        )
    }
}

impl Diverged {
    fn bytes(&self) -> Vec<u8> {
        let Self { committed, own } = self;
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        bytes.extend(committed.at.to_be_bytes());
        bytes.extend(own.index.to_be_bytes());
        for held in [&committed.held, own] {
            bytes.extend(held.state.0);
            bytes.extend(held.ledger);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> io::Result<Self> {
        let invalid = || {
            let reason = format!("{FILE} has {} bytes, not {FILE_BYTES}", bytes.len());
            io::Error::new(io::ErrorKind::InvalidData, reason)
        };
        let whole: &[u8; FILE_BYTES] = bytes.try_into().map_err(|_| invalid())?;
        let (numbers, hashes) = whole.split_at(16);
        let ([at, index], []) = numbers.as_chunks::<8>() else { return Err(invalid()) };
        let ([state, ledger, own_state, own_ledger], []) = hashes.as_chunks::<32>() else {
            return Err(invalid());
        };
        let index = u64::from_be_bytes(*index);
        let held = |state: &[u8; 32], ledger: &[u8; 32]| Held {
            index,
            state: Digest(*state),
            ledger: *ledger,
        };
        let committed = Committed { at: u64::from_be_bytes(*at), held: held(state, ledger) };
        Ok(Self { committed, own: held(own_state, own_ledger) })
    }
}

/// Why a member cannot say what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHeld {
    #[error("index {0} is not applied here yet")]
    NotYet(u64),
    #[error("the state at index {0} is not kept here")]
    Gone(u64),
}

/// A state that is kept, with the ledger's hash at its index.
#[derive(Clone)]
struct Mark {
    index: u64,
    state: State,
    ledger: LedgerHash,
}

#[derive(Default)]
struct Marks {
    kept: VecDeque<Mark>,
    /// The last entry that was applied.
    newest: Option<Mark>,
}

#[derive(Default)]
struct Digests {
    digester: Digester,
    /// What was computed last, oldest first.
    known: VecDeque<(u64, Digest)>,
}

struct Inner {
    every: u64,
    /// Where a divergence is written down.
    file: PathBuf,
    marks: Mutex<Marks>,
    /// Apart from the marks: a digest may take a while, and applying must not wait for it.
    digests: Mutex<Digests>,
    newest: watch::Sender<Option<Committed>>,
    diverged: watch::Sender<Option<Diverged>>,
}

/// Marks and checkpoints of this member. Cheap to clone.
#[derive(Clone)]
pub struct Checkpoints(Arc<Inner>);

impl fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoints").field("every", &self.0.every).finish_non_exhaustive()
    }
}

impl Checkpoints {
    /// Marks every index that `every` divides; all members of a quorum mark the same. What
    /// was found to differ before stands in the data folder `dir`.
    pub(crate) fn open(dir: &Path, every: u64) -> io::Result<Self> {
        let file = dir.join(FILE);
        let known = files::read_sealed(&file, MAGIC, 1_024)?;
        let known = known.map(|bytes| Diverged::read(&bytes)).transpose()?;
        Ok(Self(Arc::new(Inner {
            every: every.max(1),
            file,
            marks: Mutex::default(),
            digests: Mutex::default(),
            newest: watch::Sender::new(None),
            diverged: watch::Sender::new(known),
        })))
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the state after `index` is to be kept.
    pub(crate) fn is_due(&self, index: u64) -> bool {
        index > 0 && index.is_multiple_of(self.0.every)
    }

    /// Everything up to `index` is applied, and its rows are written.
    pub(crate) fn applied(&self, index: u64, state: &State, ledger: LedgerHash) {
        let mark = Mark { index, state: state.clone(), ledger };
        let mut marks = self.marks();
        if self.is_due(index) {
            // Of a large swarm each snapshot has megabytes.
            marks.kept.push_back(Mark { state: state.without_snapshots(), ..mark.clone() });
            if marks.kept.len() > MARKS_MAX {
                marks.kept.pop_front();
            }
        }
        marks.newest = Some(mark);
    }

    /// A checkpoint is applied: it says what a majority held at an earlier index.
    pub(crate) fn committed(&self, committed: Committed) {
        match self.held(committed.held.index) {
            Ok(own) if own != committed.held => {
                let diverged = Diverged { committed, own };
                tracing::error!(
                    index = own.index,
                    checkpoint = committed.at,
                    expected = %committed.held.state,
                    found = %own.state,
                    "this member has diverged from the quorum"
                );
                // The first place stays: what follows is no news.
                self.0.diverged.send_if_modified(|known| {
                    let first = known.is_none();
                    if first && let Err(error) = self.write_down(&diverged) {
                        // It serves nobody all the same, until it is started again.
                        tracing::error!(%error, "the divergence could not be written down");
                    }
                    *known = known.or(Some(diverged));
                    first
                });
            }
            Ok(_) => {}
            // It was not there: from a raft snapshot on, or after a long absence.
            Err(reason) => tracing::debug!(%reason, "checkpoint not compared"),
        }
        self.0.newest.send_replace(Some(committed));
    }

    fn write_down(&self, diverged: &Diverged) -> io::Result<()> {
        files::replace_sealed(&self.0.file, MAGIC, &diverged.bytes())
    }

    /// What this member held at `index`, if that is marked or the newest. May take a while.
    pub fn held(&self, index: u64) -> Result<Held, NotHeld> {
        let mark = {
            let marks = self.marks();
            let newest = marks.newest.iter();
            let found = marks.kept.iter().chain(newest).find(|mark| mark.index == index);
            match (found, &marks.newest) {
                (Some(mark), _) => mark.clone(),
                (None, Some(newest)) if newest.index >= index => return Err(NotHeld::Gone(index)),
                (None, _) => return Err(NotHeld::NotYet(index)),
            }
        };
        let mut digests = self.0.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let known = digests.known.iter().find(|(known, _)| *known == index);
        let state = match known {
            Some((_, digest)) => *digest,
            None => {
                let digest = digests.digester.digest(&mark.state);
                digests.known.push_back((index, digest));
                if digests.known.len() > MARKS_MAX {
                    digests.known.pop_front();
                }
                digest
            }
        };
        Ok(Held { index, state, ledger: mark.ledger })
    }

    /// The newest marked index.
    pub fn newest_mark(&self) -> Option<u64> {
        self.marks().kept.back().map(|mark| mark.index)
    }

    /// The newest applied index.
    pub fn newest(&self) -> Option<u64> {
        self.marks().newest.as_ref().map(|mark| mark.index)
    }

    /// The newest committed checkpoint that was applied since the start.
    pub fn last(&self) -> Option<Committed> {
        *self.0.newest.borrow()
    }

    /// Becomes `Some` when this member held something else than a majority, for good.
    pub fn diverged(&self) -> watch::Receiver<Option<Diverged>> {
        self.0.diverged.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use dovetail_routing::{Command, Entry, LogIndex, Payload};

    use super::*;

    fn after(index: u64) -> State {
        let mut state = State::default();
        let entry = Entry {
            schema_version: 1,
            leader_time_ms: index,
            actor: "".into(),
            request_id: format!("r{index}").into(),
            cause: "".into(),
            payload: Payload::Command(Command::Annotate { text: "x".into() }),
        };
        state.apply(LogIndex(index), &entry);
        state
    }

    fn opened(dir: &tempfile::TempDir) -> Checkpoints {
        Checkpoints::open(dir.path(), 10).expect("opened")
    }

    fn checkpoints(until: u64) -> Checkpoints {
        let dir = tempfile::tempdir().expect("a folder");
        held_until(opened(&dir), until)
    }

    fn held_until(checkpoints: Checkpoints, until: u64) -> Checkpoints {
        for index in 1..=until {
            checkpoints.applied(index, &after(index), [7; 32]);
        }
        checkpoints
    }

    #[test]
    fn marked_places_and_the_newest_are_held() {
        let checkpoints = checkpoints(35);
        for index in [10, 20, 30, 35] {
            let held = checkpoints.held(index).expect("held");
            assert_eq!((held.state, held.ledger), (after(index).digest(), [7; 32]), "{index}");
        }
        assert_eq!(checkpoints.held(34), Err(NotHeld::Gone(34)));
        assert_eq!(checkpoints.held(36), Err(NotHeld::NotYet(36)));
        assert_eq!((checkpoints.newest_mark(), checkpoints.newest()), (Some(30), Some(35)));
    }

    #[test]
    fn old_marks_go() {
        let checkpoints = checkpoints(10 * (MARKS_MAX as u64 + 2));
        assert_eq!(checkpoints.held(20), Err(NotHeld::Gone(20)));
        assert!(checkpoints.held(30).is_ok());
    }

    #[test]
    fn whoever_held_something_else_has_diverged_for_good() {
        let dir = tempfile::tempdir().expect("a folder");
        let checkpoints = held_until(opened(&dir), 35);
        let diverged = checkpoints.diverged();
        let own = checkpoints.held(30).expect("held");
        checkpoints.committed(Committed { at: 31, held: own });
        assert_eq!(*diverged.borrow(), None);
        let gone = Held { index: 34, ..own };
        checkpoints.committed(Committed { at: 32, held: gone });
        assert_eq!(*diverged.borrow(), None, "what is not held cannot be compared");
        let other = Committed { at: 33, held: Held { state: Digest([1; 32]), ..own } };
        checkpoints.committed(other);
        let first = diverged.borrow().expect("diverged");
        assert_eq!((first.committed, first.own), (other, own));
        assert!(first.to_string().contains("its state at index 30 differs"), "{first}");
        let later = Committed { at: 34, held: Held { ledger: [1; 32], ..own } };
        checkpoints.committed(later);
        assert_eq!(diverged.borrow().expect("diverged").committed.at, 33);
        assert_eq!(checkpoints.last(), Some(later));

        // Whoever starts from these files has diverged as well.
        let again = opened(&dir).diverged();
        assert_eq!(*again.borrow(), Some(first));
        let mut bytes = std::fs::read(dir.path().join(FILE)).expect("written down");
        bytes[20] ^= 1;
        std::fs::write(dir.path().join(FILE), bytes).expect("written");
        let error = Checkpoints::open(dir.path(), 10).expect_err("damaged");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
