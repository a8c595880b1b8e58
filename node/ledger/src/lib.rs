//! What an auditor runs: the ledger's chain, its export file, and replaying it.
//!
//! ```text
//! rows ─► Exporter ─► file ─► ExportReader ─► Chain (gaps, order, hashes)
//!                                    └──────► Replay ─► State ─► digests at checkpoints
//! ```
//!
//! * [`chain`]: what one row's hash is, and rows that follow on each other;
//! * [`export`]: the file of `dovetail/v1/ledger.proto`, written and read as a stream;
//! * [`explain`]: where a request goes by a state, a member's or a replayed one;
//! * [`verify`]: a file checked from end to end; [`replay`]: the state that its rows come to.
//!
//! Links neither Raft nor a storage engine: a file needs nobody else to be checked. Not
//! here: keys (whoever holds one signs, and checks a signature), the disk, the network.

pub mod chain;
pub mod explain;
pub mod export;
pub mod replay;
pub mod verify;

pub use chain::{Broken, Chain, LedgerHash, row_hash};
pub use export::{Base, ExportError, ExportReader, Exporter, Header, Statement, Trailer};
pub use replay::{Divergence, Replay, RowsOf, Until, entries_at};
pub use verify::{Named, Verified, verify, what_if};
