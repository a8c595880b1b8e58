//! The chain: what one row's hash is, and whether rows follow on each other.
//!
//! ```text
//! hash(i) = BLAKE3 keyed "dovetail ledger v1" (
//!     hash(i-1) ‖ len ‖ cluster id ‖ term ‖ index ‖ kind ‖ len ‖ entry bytes )
//! ```
//!
//! Numbers are 8 bytes little-endian, `kind` is one.

use std::sync::LazyLock;

use dovetail_proto::v1 as wire;

/// A place's hash.
pub type LedgerHash = [u8; 32];

/// What the very first row follows on.
pub const BEGINNING: LedgerHash = [0; 32];

static KEY: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key("dovetail ledger v1", b""));

/// Rows do not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is broken at index {index}: {reason}")]
pub struct Broken {
    /// The first row that does not fit.
    pub index: u64,
    pub reason: String,
}

/// The hash of a row that follows on `previous` (zeros at the very beginning).
pub fn row_hash(previous: &LedgerHash, cluster_id: &str, row: &wire::LedgerRow) -> LedgerHash {
    let mut hasher = blake3::Hasher::new_keyed(&KEY);
    hasher.update(previous);
    hasher.update(&(cluster_id.len() as u64).to_le_bytes());
    hasher.update(cluster_id.as_bytes());
    hasher.update(&row.term.to_le_bytes());
    hasher.update(&row.index.to_le_bytes());
    hasher.update(&[u8::try_from(row.kind).unwrap_or(u8::MAX)]);
    hasher.update(&(row.entry.len() as u64).to_le_bytes());
    hasher.update(&row.entry);
    *hasher.finalize().as_bytes()
}

/// A place in the ledger of one quorum, which the next row has to follow on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    cluster_id: String,
    next: u64,
    head: LedgerHash,
    rows: u64,
}

impl Chain {
    /// Before the row `first`, which follows on `previous`.
    pub fn new(cluster_id: impl Into<String>, first: u64, previous: LedgerHash) -> Self {
        Self { cluster_id: cluster_id.into(), next: first, head: previous, rows: 0 }
    }

    /// The quorum that wrote the rows.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The index that the next row must have.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The hash of the last row; what the first one follows on while there is none.
    pub fn head(&self) -> LedgerHash {
        self.head
    }

    /// How many rows have followed.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes the next row, if it is that.
    pub fn follow(&mut self, row: &wire::LedgerRow) -> Result<(), Broken> {
        let (due, found) = (self.next, row.index);
        let broken = |index, reason| Err(Broken { index, reason });
        if found > due {
            return broken(due, format!("the row is missing: {found} stands in its place"));
        }
        if found < due {
            return broken(found, format!("a row of this index stands where {due} is due"));
        }
        let hash = row_hash(&self.head, &self.cluster_id, row);
        if row.hash != hash {
            return broken(due, "the hash does not fit the row".to_owned());
        }
        self.head = hash;
        self.next = due.saturating_add(1);
        self.rows += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_row_is_fixed_for_good() {
        let row = wire::LedgerRow {
            index: 300,
            term: 3,
            entry: b"xyz".as_slice().into(),
            kind: wire::LedgerRowKind::Entry.into(),
            hash: Vec::new(),
        };
        let hash = blake3::Hash::from(row_hash(&[7; 32], "c0ffee", &row)).to_hex();
        assert_eq!(
            hash.as_str(),
            "96a0adafc227b2d09774e40e9a9104bd62e596a30fd253b63823bc8e05c6bb4b"
        );
        let other = wire::LedgerRow { term: 4, ..row };
        assert_ne!(blake3::Hash::from(row_hash(&[7; 32], "c0ffee", &other)).to_hex(), hash);
    }
}
