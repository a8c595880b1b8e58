//! The ledger as a file, streamed while it is read, and signed at its end.

use std::sync::Arc;

use bytes::Bytes;
use dovetail_ledger::{Chain, Exporter, Header};
use dovetail_proto::convert;
use dovetail_proto::v1 as pb;
use dovetail_routing::LogIndex;
use dovetail_routing::state::State;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use crate::clocks::wall_ms;
use crate::ports::{LedgerStart, Quorum};

/// Exports that are made at the same time.
pub const EXPORTS_MAX: usize = 4;
/// Rows that are read at once.
const PAGE: usize = 1_000;
/// A piece of the file is sent once it has so many bytes.
const PIECE_BYTES: usize = 256 * 1_024;
/// Pieces that wait for a slow reader.
const PIECES_MAX: usize = 4;

/// The pieces of an export.
pub(super) type Pieces = mpsc::Receiver<Result<pb::ExportPiece, Status>>;

/// Begins an export by the member of `exporter`; it goes on while somebody takes pieces.
pub(super) fn export<Q: Quorum>(
    quorum: Arc<Q>,
    request: pb::ExportLogRequest,
    exporter: String,
    permit: OwnedSemaphorePermit,
) -> Pieces {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    // Compressing and hashing megabytes is nothing for a thread that carries heartbeats.
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let work = Work { quorum: &*quorum, runtime: Handle::current(), sender: &sender };
        if let Err(status) = work.run(&request, exporter) {
            // Whoever has left needs no reason.
            let _ = sender.blocking_send(Err(status));
        }
    });
    pieces
}

struct Work<'w, Q> {
    quorum: &'w Q,
    runtime: Handle,
    sender: &'w mpsc::Sender<Result<pb::ExportPiece, Status>>,
}

impl<Q: Quorum> Work<'_, Q> {
    fn run(&self, request: &pb::ExportLogRequest, exporter: String) -> Result<(), Status> {
        let applied = self.quorum.view().borrow().applied;
        let last = if request.to == 0 { applied } else { request.to.min(applied) };
        if request.from > last {
            return Err(Status::out_of_range(format!(
                "from: {} lies behind {last}, the last entry to export",
                request.from
            )));
        }
        let mut start = self.start(request.from)?;
        if start.first.0 > last {
            return Err(Status::out_of_range(format!(
                "to: this member's ledger begins at {}",
                start.first
            )));
        }
        let cluster_id = self.quorum.view().borrow().cluster_id.clone();
        if start.first.0 < request.from {
            start = self.skip(&cluster_id, start, request.from)?;
        }
        let header = Header {
            cluster_id,
            ancestors: start.ancestors,
            first: start.first.0,
            made_at_ms: wall_ms(),
            exporter,
            previous: start.previous,
        };
        let base = start.base.as_ref().map(|(state, digest)| (state.as_ref(), *digest));
        let mut file = Exporter::begin(Vec::new(), &header, base).map_err(broken)?;
        self.rows(start.first.0, last, |row| {
            file.row(row).map_err(broken)?;
            let ready = file.get_mut();
            if ready.len() >= PIECE_BYTES { self.send(std::mem::take(ready)) } else { Ok(()) }
        })?;
        let sign = |statement: &[u8]| self.quorum.sign(statement).map(Some);
        let (rest, _) = file.finish(wall_ms(), sign).map_err(broken)?;
        self.send(rest)
    }

    /// Where the ledger begins, so that the state before `from` can be had as well.
    fn start(&self, from: u64) -> Result<LedgerStart, Status> {
        let oldest = self.runtime.block_on(self.quorum.ledger_from(LogIndex(0)));
        match oldest {
            Ok(start) if start.first.0 <= from && (start.base.is_some() || start.first.0 == 0) => {
                Ok(start)
            }
            // Without a state, or for what a gap lies behind of, the place itself will do.
            _ => self
                .runtime
                .block_on(self.quorum.ledger_from(LogIndex(from)))
                .map_err(Status::out_of_range),
        }
    }

    /// Goes on to `from`: its state is what the rows before it come to.
    fn skip(&self, cluster_id: &str, start: LedgerStart, from: u64) -> Result<LedgerStart, Status> {
        let mut state = match &start.base {
            None => State::default(),
            Some((bytes, _)) => State::decode(bytes)
                .map_err(|error| Status::data_loss(format!("the ledger's base: {error}")))?,
        };
        let mut chain = Chain::new(cluster_id, start.first.0, start.previous);
        self.rows(start.first.0, from - 1, |row| {
            chain.follow(&row).map_err(|error| Status::data_loss(error.to_string()))?;
            if row.kind() == pb::LedgerRowKind::Entry {
                let entry = convert::decode_entry(&row.entry)
                    .map_err(|error| Status::data_loss(format!("entry {}: {error}", row.index)))?;
                state.apply(LogIndex(row.index), &entry);
            }
            Ok(())
        })?;
        Ok(LedgerStart {
            first: LogIndex(from),
            previous: chain.head(),
            base: Some((state.encode().into(), state.digest())),
            ancestors: start.ancestors,
        })
    }

    /// Every row from `first` to `last`; one that is missing is found by whoever takes them.
    fn rows(
        &self,
        first: u64,
        last: u64,
        mut each: impl FnMut(pb::LedgerRow) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let mut next = first;
        while next <= last {
            let page = self
                .runtime
                .block_on(self.quorum.ledger(LogIndex(next), PAGE))
                .map_err(|reason| Status::data_loss(format!("read the ledger: {reason}")))?;
            let Some(end) = page.last().map(|row| row.index) else {
                return Err(Status::data_loss(format!("ledger row {next} is missing")));
            };
            for row in page.into_iter().take_while(|row| row.index <= last) {
                each(row)?;
            }
            next = end.saturating_add(1);
        }
        Ok(())
    }

    fn send(&self, data: Vec<u8>) -> Result<(), Status> {
        let piece = pb::ExportPiece { data: Bytes::from(data) };
        self.sender.blocking_send(Ok(piece)).map_err(|_| Status::cancelled("nobody takes it"))
    }
}

fn broken(error: dovetail_ledger::ExportError) -> Status {
    Status::data_loss(dovetail_process::chain(&error))
}
