//! RPCs from other members.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dovetail_control::local::Local;
use dovetail_control::ports::Asked;
use dovetail_process::grpc;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::raft_server::{Raft as RaftService, RaftServer};
use dovetail_raft_store::codec::{self, InvalidBytes};
use dovetail_raft_store::{Ledger, Raft, RaftSnapshot};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::hub::Hub;
use super::members::NODE_IDS_FROM;
use super::network::CHUNK_BYTES;

/// The largest message between members: an append is limited by bytes well below it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// The largest raft snapshot that is taken in.
pub(crate) const RAFT_SNAPSHOT_BYTES_MAX: usize = 256 * 1_024 * 1_024;

/// This member's side of the Raft service.
#[derive(Debug)]
pub(crate) struct Server {
    hub: Arc<Hub>,
    local: Local,
    ledger: Ledger,
}

impl Server {
    pub(crate) fn service(hub: Arc<Hub>, local: Local, ledger: Ledger) -> RaftServer<Self> {
        RaftServer::new(Self { hub, local, ledger })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn answer(&self, payload: Bytes) -> Response<pb::RaftMessage> {
        Response::new(pb::RaftMessage { sender: Some(self.hub.sender()), payload })
    }

    /// The sender is a member of this quorum; returns Raft and what it sent.
    fn admitted(&self, request: Request<pb::RaftMessage>) -> Result<(&Raft, Bytes), Status> {
        let peer = grpc::peer(&request)?;
        let message = request.into_inner();
        let raft = self.hub.admit(&peer, message.sender.as_ref())?;
        Ok((raft, message.payload))
    }
}

fn invalid(error: InvalidBytes) -> Status {
    Status::invalid_argument(dovetail_process::chain(&error))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft has stopped: {error}"))
}

#[tonic::async_trait]
impl RaftService for Server {
    async fn hello(
        &self,
        request: Request<pb::MemberHello>,
    ) -> Result<Response<pb::MemberHello>, Status> {
        let peer = grpc::peer(&request)?;
        let asking = request.get_ref();
        let slot = self.hub.authenticate(&peer, asking.sender.as_ref())?;
        let removed = |sender| asking.has_data && self.hub.has_removed(sender);
        Ok(Response::new(pb::MemberHello {
            sender: Some(self.hub.sender()),
            has_data: self.hub.has_data(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            knows_slot: !self.hub.nodes_of(slot).is_empty(),
            removed_you: asking.sender.as_ref().is_some_and(removed),
        }))
    }

    async fn adopt(
        &self,
        request: Request<pb::AdoptRequest>,
    ) -> Result<Response<pb::AdoptResponse>, Status> {
        let peer = grpc::peer(&request)?;
        let request = request.into_inner();
        let slot = self.hub.authenticate(&peer, request.sender.as_ref())?;
        if request.node_id < NODE_IDS_FROM {
            let reason = format!("{} is no id of a member that is taken in", request.node_id);
            return Err(Status::invalid_argument(reason));
        }
        let owner = self.hub.owner.clone();
        let pb::AdoptRequest { cluster_id, node_id, ancestors, .. } = request;
        tokio::task::spawn_blocking(move || owner.adopt(&cluster_id, ancestors, node_id))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::failed_precondition(dovetail_process::chain(&error)))?;
        info!(by = slot, node = node_id, "this disk was taken in");
        Ok(Response::new(pb::AdoptResponse { sender: Some(self.hub.sender()) }))
    }

    async fn found(
        &self,
        request: Request<pb::FoundRequest>,
    ) -> Result<Response<pb::FoundResponse>, Status> {
        let peer = grpc::peer(&request)?;
        let request = request.into_inner();
        let slot = self.hub.authenticate(&peer, request.sender.as_ref())?;
        if self.hub.members.0.keys().next() != Some(&slot) {
            let reason = format!("member {slot} is not the lowest of {}", self.hub.members);
            return Err(Status::failed_precondition(reason));
        }
        if self.hub.has_data() {
            return Err(Status::failed_precondition("this disk holds data"));
        }
        let owner = self.hub.owner.clone();
        tokio::task::spawn_blocking(move || owner.found(&request.cluster_id))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::internal(dovetail_process::chain(&error)))?;
        Ok(Response::new(pb::FoundResponse {
            sender: Some(self.hub.sender()),
            address: self.hub.advertised.clone(),
        }))
    }

    async fn vote(
        &self,
        request: Request<pb::RaftMessage>,
    ) -> Result<Response<pb::RaftMessage>, Status> {
        let (raft, payload) = self.admitted(request)?;
        let request = codec::decode_vote_request(payload).map_err(invalid)?;
        let response = raft.vote(request).await.map_err(stopped)?;
        Ok(self.answer(codec::encode_vote_response(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::RaftMessage>,
    ) -> Result<Response<pb::RaftMessage>, Status> {
        let (raft, payload) = self.admitted(request)?;
        let request = codec::decode_vote_request(payload).map_err(invalid)?;
        let response = raft.pre_vote(request).await.map_err(stopped)?;
        Ok(self.answer(codec::encode_vote_response(&response)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::RaftMessage>,
    ) -> Result<Response<pb::RaftMessage>, Status> {
        let (raft, payload) = self.admitted(request)?;
        let request = codec::decode_transfer_request(payload).map_err(invalid)?;
        let response = raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(self.answer(codec::encode_transfer_response(&response)))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::RaftMessage>,
    ) -> Result<Response<pb::RaftMessage>, Status> {
        let (raft, payload) = self.admitted(request)?;
        let request = codec::decode_append(payload).map_err(invalid)?;
        let response = raft.append_entries(request).await.map_err(stopped)?;
        self.hub.hear_leader();
        Ok(self.answer(codec::encode_append_response(&response)))
    }

    type AppendStream = BoxStream<'static, Result<pb::RaftMessage, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::RaftMessage>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let peer = grpc::require(&request, &[grpc::Allow::Member])?;
        let mut messages = request.into_inner();
        let raft = self.hub.raft().cloned().ok_or_else(|| {
            Status::unavailable(format!("member {} has not joined a quorum", self.hub.slot))
        })?;
        let hub = Arc::clone(&self.hub);
        // Every message says who sends it: a stream may outlive what the sender was.
        let decode = move |message: pb::RaftMessage| {
            hub.admit(&peer, message.sender.as_ref())?;
            let request = codec::decode_append(message.payload).map_err(invalid)?;
            hub.hear_leader();
            Ok(request)
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let request = match message.and_then(&decode) {
                    Ok(request) => request,
                    Err(status) => {
                        warn!(reason = status.message(), "append stream ended");
                        return;
                    }
                };
                if sender.send(request).await.is_err() {
                    return;
                }
            }
        });
        let hub = Arc::clone(&self.hub);
        let results = raft.stream_append(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let answers = results.map(move |result| {
            let result = result.map_err(stopped)?;
            let payload = codec::encode_stream_append(&result);
            Ok(pb::RaftMessage { sender: Some(hub.sender()), payload })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::RaftMessage>>,
    ) -> Result<Response<pb::RaftMessage>, Status> {
        let peer = grpc::peer(&request)?;
        let mut messages = request.into_inner();
        let first = messages
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("a raft snapshot without a header"))?;
        let raft = self.hub.admit(&peer, first.sender.as_ref())?;
        let header = codec::decode_install_header(first.payload).map_err(invalid)?;
        let mut content = BytesMut::new();
        while let Some(chunk) = messages.message().await? {
            if content.len() + chunk.payload.len() > RAFT_SNAPSHOT_BYTES_MAX {
                return Err(Status::resource_exhausted(format!(
                    "the raft snapshot is above {RAFT_SNAPSHOT_BYTES_MAX} bytes"
                )));
            }
            content.extend_from_slice(&chunk.payload);
        }
        if content.len() as u64 != header.bytes {
            return Err(Status::data_loss(format!(
                "the raft snapshot has {} bytes of {}",
                content.len(),
                header.bytes
            )));
        }
        let snapshot = RaftSnapshot { meta: header.meta, snapshot: content.freeze() };
        let response = raft.install_full_snapshot(header.vote, snapshot).await.map_err(stopped)?;
        Ok(self.answer(codec::encode_snapshot_response(&response)))
    }

    async fn local(
        &self,
        request: Request<pb::LocalRequest>,
    ) -> Result<Response<pb::LocalResponse>, Status> {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let peer = grpc::peer(&request)?;
        let raft = self.hub.admit(&peer, request.get_ref().sender.as_ref())?;
        let applied = raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index);
        let pb::LocalRequest { problems, traffic, clock_only, .. } = *request.get_ref();
        Ok(Response::new(self.local.answer(applied, Asked { problems, traffic, clock_only })))
    }

    async fn ledger(
        &self,
        request: Request<pb::LedgerRequest>,
    ) -> Result<Response<pb::MemberLedger>, Status> {
        let peer = grpc::peer(&request)?;
        self.hub.admit(&peer, request.get_ref().sender.as_ref())?;
        let pb::LedgerRequest { index, recompute, .. } = request.into_inner();
        let (hub, ledger) = (Arc::clone(&self.hub), self.ledger.clone());
        let check = move || super::audit::check(&hub, &ledger, index, recompute);
        let answer = super::audit::on_a_thread(check).await.map_err(Status::internal)?;
        Ok(Response::new(answer))
    }

    async fn ledger_rows(
        &self,
        request: Request<pb::LedgerRowsRequest>,
    ) -> Result<Response<pb::LedgerRowsResponse>, Status> {
        let peer = grpc::peer(&request)?;
        self.hub.admit(&peer, request.get_ref().sender.as_ref())?;
        let pb::LedgerRowsRequest { first, last, .. } = request.into_inner();
        let ledger = self.ledger.clone();
        let read =
            move || ledger.piece(first, last).map_err(|error| dovetail_process::chain(&error));
        let piece = super::audit::on_a_thread(read).await.map_err(Status::data_loss)?;
        let previous = piece.previous.to_vec();
        Ok(Response::new(pb::LedgerRowsResponse { rows: piece.rows, previous }))
    }

    type LedgerBaseStream = BoxStream<'static, Result<pb::LedgerBaseChunk, Status>>;

    async fn ledger_base(
        &self,
        request: Request<pb::LedgerBaseRequest>,
    ) -> Result<Response<Self::LedgerBaseStream>, Status> {
        let peer = grpc::peer(&request)?;
        self.hub.admit(&peer, request.get_ref().sender.as_ref())?;
        let ledger = self.ledger.clone();
        let base = super::audit::on_a_thread(move || ledger.oldest_base()).await;
        let base = Bytes::from(base.map_err(Status::data_loss)?.unwrap_or_default());
        let chunks = (0..base.len()).step_by(CHUNK_BYTES).map(move |start| {
            let content = base.slice(start..base.len().min(start + CHUNK_BYTES));
            Ok(pb::LedgerBaseChunk { content: content.to_vec() })
        });
        Ok(Response::new(futures_util::stream::iter(chunks).boxed()))
    }

    async fn held(
        &self,
        request: Request<pb::HeldRequest>,
    ) -> Result<Response<pb::HeldResponse>, Status> {
        let peer = grpc::peer(&request)?;
        self.hub.admit(&peer, request.get_ref().sender.as_ref())?;
        let (hub, index) = (Arc::clone(&self.hub), request.get_ref().index);
        let held = super::audit::on_a_thread(move || super::audit::held(&hub, index)).await;
        Ok(Response::new(held.map_err(Status::failed_precondition)?))
    }
}
