//! A disk in memory, for simulations: what was written is lost in a crash, unless it was
//! flushed; and it fails when it is told to.
//!
//! A [`Device`] is what a machine keeps when its power goes. [`Device::boot`] gives the
//! folder under which [`crate::open`] finds it; a folder of an earlier boot is dead, so that
//! tasks of a crashed member can write nothing. Everything happens on one thread, in virtual
//! time: [`is_active`] there, the store starts no thread.
//!
//! Not in any product: the feature `sim` is switched on by tests only.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Component, Path};
use std::time::Duration;

use dovetail_routing::state::State;
use dovetail_routing::{Command, Entry, Payload};
use tokio::time::Instant;

mod device;
mod tables;

pub use device::{Device, Fault};
pub(crate) use device::{Mount, Part};
pub(crate) use tables::Change;

/// Where simulated folders begin.
const ROOT: &str = "/simulated";

thread_local! {
    static DEVICES: RefCell<BTreeMap<String, Device>> = const { RefCell::new(BTreeMap::new()) };
    static START: OnceCell<Instant> = const { OnceCell::new() };
    static SABOTAGE: Cell<Option<Sabotage>> = const { Cell::new(None) };
}

/// A mistake built into the store on purpose, to see that a simulation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Appended entries are acknowledged before they are flushed.
    AckBeforeSync,
    /// A vote is given before it is flushed, and the guard is not told.
    VoteUnsynced,
    /// The last entry is dropped when the log is opened.
    DropLastEntry,
    /// Raft snapshots do not say who the members are.
    SnapshotWithoutMembers,
    /// The ledger leaves out rows, and the log is purged although it does not hold what goes.
    PurgeBeforeLedger,
    /// What is applied depends on when it is applied.
    WallClock,
    /// A vote reaches the disk only after the entries that follow it were flushed.
    VoteAfterAppend,
    /// Votes and markers have a write-ahead log of their own, which is flushed by itself.
    TwoLogs,
    /// Of a write-ahead log that a power cut damaged, what precedes the damage is taken for all.
    PointInTime,
    /// What is applied depends on the order in which a hash map gives its elements.
    HashMapOrder,
    /// Raft snapshots hold more than they say was applied, so that entries are applied twice.
    AppliedLags,
}

/// Builds a mistake into every store of this thread.
pub fn sabotage(mistake: Option<Sabotage>) {
    SABOTAGE.set(mistake);
}

/// Whether a mistake is built in.
pub fn sabotaged(mistake: Sabotage) -> bool {
    SABOTAGE.get() == Some(mistake)
}

/// An entry as it is applied: with a wall clock in the reducer, the member's own time counts,
/// and with a hash map in it, the order that the map happens to have.
pub(crate) fn sabotaged_entry(mut entry: Entry) -> Entry {
    if sabotaged(Sabotage::WallClock) {
        let passed = START.with(|start| start.get_or_init(Instant::now).elapsed());
        entry.leader_time_ms += u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
    }
    if sabotaged(Sabotage::HashMapOrder) {
        match &mut entry.payload {
            Payload::Observed(observed) => shuffle(&mut observed.changes),
            Payload::Command(Command::SetCanary { shares, .. }) => shuffle(shares),
            _ => {}
        }
    }
    entry
}

/// As a hash map gives them: each map in an order of its own.
fn shuffle<T>(list: &mut Vec<T>) {
    let map: HashMap<usize, T> = list.drain(..).enumerate().collect();
    list.extend(map.into_values());
}

/// The state, as if it did not know what was applied after `applied`.
pub(crate) fn forgetful(state: &State, applied: u64) -> io::Result<State> {
    let mut bytes = state.encode();
    // See `dovetail-routing`: a format of four bytes, and then what was applied.
    bytes[4..12].copy_from_slice(&applied.to_be_bytes());
    State::decode(&bytes).map_err(io::Error::other)
}

/// Whether this thread simulates.
pub fn is_active() -> bool {
    DEVICES.with_borrow(|devices| !devices.is_empty())
}

/// The device and the boot that a path lies on; `None` for a real path.
pub(crate) fn mount(path: &Path) -> Option<Mount> {
    let mut parts = path.strip_prefix(ROOT).ok()?.components();
    let (Some(Component::Normal(name)), Some(Component::Normal(boot))) =
        (parts.next(), parts.next())
    else {
        return None;
    };
    let boot = boot.to_str()?.parse().ok()?;
    let device = DEVICES.with_borrow(|devices| devices.get(name.to_str()?).cloned())?;
    Some(Mount::new(device, boot))
}

fn register(name: &str, device: &Device) {
    DEVICES.with_borrow_mut(|devices| devices.insert(name.to_owned(), device.clone()));
}

/// Does at once what a product does on a thread of its own, after a while.
pub(crate) async fn run_blocking<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    work()
}
