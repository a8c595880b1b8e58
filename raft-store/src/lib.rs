//! The only owner of the disk: Raft's log, vote, state machine and ledger on RocksDB.
//!
//! ```text
//! openraft ─► log ─────────► RocksDB (log, meta, ledger; one write-ahead log)
//!    │         └─► flush ──► fsync, guard file, callbacks in order
//!    └─► state_machine ────► routing::State, published on a watch
//!              └───────────► ledger rows, raft snapshots
//! ```
//!
//! * [`ondisk`]: opening a data folder, and refusing one that lost what it acknowledged;
//! * [`log`]: openraft's log storage; [`state_machine`]: openraft's state machine;
//! * [`ledger`]: the hash-chained copy of every applied entry;
//! * [`offline`]: a new quorum out of a backup or of one folder;
//! * [`audit`]: the ledger of a folder that no member uses;
//! * [`checkpoint`]: what this member held at marked indexes, and whether a majority did;
//! * [`owner`]: whose disk this is; [`codec`]: openraft's values as bytes;
//! * `sim` (feature `sim`, in no product): a disk in memory with faults, for simulations.
//!
//! Acknowledged means flushed here: a callback or a returned vote never precedes its
//! `fsync`. Not here: the network, elections, what an entry means.

pub mod audit;
mod base;
mod cache;
pub mod checkpoint;
pub mod codec;
mod disk;
mod files;
mod flush;
mod guard;
pub mod ledger;
pub mod log;
pub mod offline;
pub mod ondisk;
pub mod owner;
mod raft_config;
mod raft_snapshot;
#[cfg(feature = "sim")]
pub mod sim;
pub mod state_machine;
pub mod types;

pub use audit::{Offline, Rows, open_offline};
pub use checkpoint::{Checkpoints, Committed, Diverged, Held, NotHeld};
pub use ledger::{Broken, Lack, Ledger, LedgerError, Piece, Retention, Start, Unproven, Verified};
pub use log::{LogReader, LogStore};
pub use ondisk::{DATA_VERSION, OpenError, Store, StoreConfig, StoreHandle, open, read_owner};
pub use owner::{Owner, OwnerError, OwnerHandle, random_id};
pub use raft_config::{
    ELECTION_MAX_MS, ELECTION_MIN_MS, HEARTBEAT_MS, LOG_KEPT_ENTRIES, raft_config,
};
pub use raft_snapshot::RAFT_SNAPSHOT_BYTES_MAX;
pub use state_machine::StateMachine;
pub use types::*;
