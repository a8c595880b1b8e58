//! What a running member does to its ledger: the oldest rows go, and lacking ones come.

use std::io;

use super::StoreHandle;
use crate::ledger::{LedgerError, Piece, Retention, Unproven};
use crate::raft_snapshot;
use crate::state_machine::{Parts, run_blocking};

impl StoreHandle {
    /// Trims the ledger to `retention`, once enough is past it; `now_ms` is the leader's
    /// time. What goes is replaced by the state that it comes to.
    pub async fn trim_ledger(&self, retention: Retention, now_ms: u64) -> Result<(), LedgerError> {
        let parts = self.parts.clone();
        let work = move || Ok(trim_ledger(&parts, &retention, now_ms));
        if run_blocking(work).await?? {
            self.forget_bases().await?;
        }
        Ok(())
    }

    async fn forget_bases(&self) -> io::Result<()> {
        // Whoever removes the old base needs what made it needless to be durable.
        self.parts.flusher.sync().await?;
        let ledger = self.parts.ledger.clone();
        run_blocking(move || {
            ledger.forget_bases();
            Ok(())
        })
        .await
    }

    /// Sets damaged bases of the ledger aside, so that they are fetched anew; says what is wrong
    /// with them. Reads and decodes a whole state.
    pub async fn mend_ledger_bases(&self) -> Result<Vec<String>, LedgerError> {
        let parts = self.parts.clone();
        let work = move || Ok(parts.ledger.mend_bases(&parts.owner.cluster_id()));
        run_blocking(work).await?
    }

    /// Whether the ledger has rows from before the oldest state that it goes on from.
    pub fn lacks_ledger_state(&self) -> bool {
        self.parts.ledger.lacks_state()
    }

    /// The index of the ledger's oldest row.
    pub fn ledger_first(&self) -> u64 {
        self.parts.ledger.first()
    }

    /// Puts rows of another member before this one's, if they are proven to belong there.
    pub async fn prepend_to_ledger(&self, piece: Piece) -> Result<(), Unproven> {
        let parts = self.parts.clone();
        let work = move || Ok(parts.ledger.prepend(&parts.owner.cluster_id(), &piece));
        run_blocking(work).await?
    }

    /// Takes what another member's base of the ledger leads to, if it is proven; whether that
    /// was of use.
    pub async fn take_ledger_base(&self, bytes: bytes::Bytes) -> Result<bool, Unproven> {
        let parts = self.parts.clone();
        let work = move || Ok(parts.ledger.take_base(&parts.owner.cluster_id(), &bytes));
        run_blocking(work).await?
    }

    /// Whether `retention` keeps older rows than the ledger's newest run has.
    pub async fn keeps_older_rows(
        &self,
        retention: Retention,
        now_ms: u64,
    ) -> Result<bool, LedgerError> {
        let ledger = self.parts.ledger.clone();
        run_blocking(move || Ok(ledger.keeps_older(&retention, now_ms))).await?
    }

    /// Looks for no more rows from before the ledger's newest run.
    pub async fn settle_ledger(&self) -> Result<(), LedgerError> {
        let ledger = self.parts.ledger.clone();
        run_blocking(move || Ok(ledger.settle())).await??;
        Ok(self.forget_bases().await?)
    }
}

/// Whether a base may be needless now.
fn trim_ledger(parts: &Parts, retention: &Retention, now_ms: u64) -> Result<bool, LedgerError> {
    let (ledger, cluster_id) = (&parts.ledger, parts.owner.cluster_id());
    if !ledger.is_trim_due(retention, now_ms)? {
        return Ok(false);
    }
    // Without a state that can be read, history begins anew at a raft snapshot.
    if ledger.start(&cluster_id)?.state.is_none()
        && let Some((content, bytes)) = parts.snapshots.newest_whole(raft_snapshot::decode)?
        && let Some(id) = content.meta.last_log_id
    {
        ledger.adopt(id.index, &bytes)?;
    }
    let mut oldest = ledger.first();
    loop {
        let left = ledger.trim(&cluster_id, retention, now_ms)?;
        if left == oldest {
            return Ok(true);
        }
        oldest = left;
    }
}
