//! A backup: the state of a moment, sent as a file in parts.

use bytes::Bytes;
use dovetail_proto::v1 as pb;
use dovetail_routing::LogIndex;
use futures_util::{Stream, stream};
use pb::backup_part::Part;
use tonic::Status;

use super::{Admin, no_leader};
use crate::observe::Observe;
use crate::ports::{Peers, Quorum};

/// Bytes of one part.
const PART_BYTES: usize = 1_024 * 1_024;

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// What this member, which has to lead, holds now.
    pub(super) async fn backup_parts(
        &self,
    ) -> Result<impl Stream<Item = Result<pb::BackupPart, Status>> + Send + 'static, Status> {
        let view = self.view();
        if view.fence.is_none() {
            return Err(no_leader(&view, "a backup is made by the leader"));
        }
        let Ok(permit) = self.backups.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted("a backup is being made: try again"));
        };
        self.barrier().await?;
        let made = self.core.quorum.backup().await;
        let (LogIndex(index), file) =
            made.map_err(|reason| Status::internal(format!("make a backup: {reason}")))?;
        let header = pb::BackupHeader {
            cluster_id: view.cluster_id,
            index,
            bytes: file.len() as u64,
            hash: blake3::hash(&file).as_bytes().to_vec(),
        };
        let first = std::iter::once(Part::Header(header));
        let parts = first.chain(pieces(file).map(Part::Content)).map(move |part| {
            let _held = &permit;
            Ok(pb::BackupPart { part: Some(part) })
        });
        Ok(stream::iter(parts))
    }
}

fn pieces(mut file: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let piece = file.split_to(file.len().min(PART_BYTES));
        (!piece.is_empty()).then_some(piece)
    })
}
