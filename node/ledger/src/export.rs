//! The export file of `dovetail/v1/ledger.proto`: written and read as a stream.
//!
//! Memory is bounded by one block, and by the base's state where there is one. A length
//! is checked before anything is allocated for it; whatever does not fit is refused with
//! the index at which it was met.

use std::io;

use dovetail_proto::v1 as wire;
use dovetail_routing::snapshot::Digest;
use dovetail_routing::state::State;

use crate::chain::{Broken, LedgerHash};

mod frame;
mod reader;
mod writer;

pub use reader::ExportReader;
pub use writer::Exporter;

/// The form that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// A block is closed once its rows have so many bytes.
pub const BLOCK_BYTES: usize = 1024 * 1024;
/// The most bytes of one block before compression: what a full block and one more entry have.
pub const BLOCK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most bytes of a base's state.
pub const BASE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What a statement is about.
const WHAT: &str = "dovetail ledger export v1";

/// Why a file is not what it should be, or cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("read the export")]
    Read(#[source] io::Error),
    #[error("write the export")]
    Write(#[source] io::Error),
    #[error("this is no exported ledger: it does not begin as one")]
    OtherKind,
    #[error("the export is of format {found}, this build reads {FORMAT}: use a newer build")]
    Newer { found: u32 },
    /// The file is broken outside its rows.
    #[error("the export is broken: {reason}")]
    File { reason: String },
    /// The file is broken at a row.
    #[error(transparent)]
    Rows(#[from] Broken),
    /// A newer build wrote what this one cannot read.
    #[error("entry {index} cannot be read by this build: replay it with the build that wrote it")]
    Entry {
        index: u64,
        #[source]
        error: dovetail_proto::convert::InvalidEntry,
    },
    /// The exporter's key is of no use.
    #[error("sign the export: {reason}")]
    Sign { reason: String },
}

impl ExportError {
    pub(crate) fn file(reason: impl Into<String>) -> Self {
        Self::File { reason: reason.into() }
    }

    /// Rows that are broken at `index`.
    pub fn at(index: u64, reason: impl Into<String>) -> Self {
        Self::Rows(Broken { index, reason: reason.into() })
    }

    /// The row at which it is broken.
    pub fn index(&self) -> Option<u64> {
        match self {
            Self::Rows(broken) => Some(broken.index),
            Self::Entry { index, .. } => Some(*index),
            _ => None,
        }
    }
}

/// Whose ledger an export is of, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub cluster_id: String,
    /// Cluster ids that this one was restored from, newest first.
    pub ancestors: Vec<String>,
    /// The first row's index.
    pub first: u64,
    /// When it was begun, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// Identity of whoever exported.
    pub exporter: String,
    /// The ledger's hash before `first`; zeros where the log begins.
    pub previous: LedgerHash,
}

impl Header {
    /// Whether the rows are those from the beginning of the log.
    pub fn begins_the_log(&self) -> bool {
        self.first == 0
    }
}

/// The state that the first row is applied to.
#[derive(Clone, Debug)]
pub struct Base {
    pub index: u64,
    pub digest: Digest,
    pub state: State,
}

/// What the exporter vouches for, as it was read and compared with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub cluster_id: String,
    pub first: u64,
    pub last: u64,
    pub rows: u64,
    pub head: LedgerHash,
    pub signed_at_ms: u64,
    pub exporter: String,
}

/// The end of a file that was read whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Trailer {
    pub statement: Statement,
    /// The bytes that are signed.
    pub signed: Vec<u8>,
    pub signature: Option<wire::ExportSignature>,
}
