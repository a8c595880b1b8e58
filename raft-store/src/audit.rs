//! A data folder that no member uses: its ledger, read and nothing else.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dovetail_ledger::{Chain, ExportError, LedgerHash, RowsOf};
use dovetail_proto::v1 as wire;

use crate::disk::Disk;
use crate::ledger::{LEDGER_ROWS_MAX, Ledger, LedgerError, Start};
use crate::ondisk::{Folder, OpenError};
use crate::owner::Owner;
use crate::state_machine::chain;

/// A data folder, open for reading. The folder's lock is held: no member can start.
#[derive(Debug)]
pub struct Offline {
    pub owner: Owner,
    pub ledger: Ledger,
}

/// Opens the ledger of a data folder, writing nothing of what it holds. Refused while a
/// member uses it.
pub fn open_offline(dir: &Path) -> Result<Offline, OpenError> {
    let folder = Folder(dir);
    if !folder.holds("db")? {
        let none = io::Error::new(io::ErrorKind::NotFound, "there is no database in it");
        return Err(folder.cannot("open it", none));
    }
    let lock = folder.lock()?;
    folder.check_version()?;
    let owner = folder.known_owner()?;
    let disk = Disk::open_read_only(dir, lock)
        .map_err(|error| folder.refuse("open its database", error))?;
    let ledger =
        Ledger::open(Arc::new(disk)).map_err(|error| folder.refuse("read the ledger", error))?;
    Ok(Offline { owner, ledger })
}

impl Offline {
    /// From where on the ledger can be replayed.
    pub fn start(&self) -> Result<Start, LedgerError> {
        self.ledger.start(&self.owner.cluster_id)
    }
}

/// The rows of a ledger from some index on, each checked to follow on the one before.
#[derive(Debug)]
pub struct Rows {
    ledger: Ledger,
    chain: Chain,
    /// The last row that is given.
    last: u64,
    page: std::vec::IntoIter<wire::LedgerRow>,
}

impl Rows {
    /// The newest run without a gap.
    pub fn of(offline: &Offline) -> Self {
        let (first, previous) = offline.ledger.newest_run();
        Self::after(offline, first, previous)
    }

    /// All from `first` on, which follows on `previous`, up to the newest.
    pub fn after(offline: &Offline, first: u64, previous: LedgerHash) -> Self {
        let (last, _) = offline.ledger.head();
        Self {
            ledger: offline.ledger.clone(),
            chain: Chain::new(&*offline.owner.cluster_id, first, previous),
            last,
            page: Vec::new().into_iter(),
        }
    }

    /// Nothing behind `last`.
    #[must_use]
    pub fn up_to(self, last: u64) -> Self {
        Self { last: self.last.min(last), ..self }
    }

    /// The place after the last row that was given.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }
}

impl RowsOf for Rows {
    fn next_row(&mut self) -> Result<Option<wire::LedgerRow>, ExportError> {
        let due = self.chain.next();
        if self.page.len() == 0 {
            if due > self.last {
                return Ok(None);
            }
            let rows = self.ledger.rows(due, LEDGER_ROWS_MAX).map_err(|error| match error {
                LedgerError::Disk(error) => ExportError::Read(error),
                error => ExportError::at(due, chain(&error)),
            })?;
            self.page = rows.into_iter();
        }
        let Some(row) = self.page.next() else {
            // The head says that there are rows; an empty ledger has none, and no head.
            return match self.chain.rows() == 0 && self.last == 0 {
                true => Ok(None),
                false => Err(ExportError::at(due, "the row is missing")),
            };
        };
        if row.index > self.last {
            return Ok(None);
        }
        self.chain.follow(&row)?;
        Ok(Some(row))
    }
}
