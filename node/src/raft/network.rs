//! RPCs to other members: three connections to each, so that a heartbeat waits
//! neither behind entries nor behind a raft snapshot.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dovetail_control::ports::Slot;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::raft_client::RaftClient;
use dovetail_raft_store::codec::{self, InstallHeader, InvalidBytes};
use dovetail_raft_store::{MemberNode, RaftSnapshot, RaftSnapshotData, TypeConfig, Vote};
use futures_util::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use tonic::transport::Channel;

use super::hub::Hub;
use super::server::MESSAGE_BYTES_MAX;

/// Bytes of a raft snapshot in one message.
pub(crate) const CHUNK_BYTES: usize = 1_024 * 1_024;
/// Requests of one append stream that wait for the connection.
const APPENDS_QUEUED: usize = 64;

type Client = RaftClient<Channel>;

/// Makes the connections to each member, once.
#[derive(Debug)]
pub(crate) struct Network {
    hub: Arc<Hub>,
    /// By Raft's id.
    links: BTreeMap<u64, Link>,
}

impl Network {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, links: BTreeMap::new() }
    }
}

/// The connections to one member; a clone shares them.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    hub: Arc<Hub>,
    node: MemberNode,
    /// Votes, heartbeats and transfers; `Err` says why the member cannot be dialled.
    urgent: Result<Client, String>,
    appends: Result<Client, String>,
    bulk: Result<Client, String>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &MemberNode) -> Link {
        if let Some(known) = self.links.get(&target).filter(|link| link.node == *node) {
            return known.clone();
        }
        let address = self.hub.address_of(target, node);
        let client = || {
            super::peers::raft_client_at(&self.hub, node.slot, &address).map(|client| {
                client
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX)
            })
        };
        let link = Link {
            hub: Arc::clone(&self.hub),
            node: node.clone(),
            urgent: client(),
            appends: client(),
            bulk: client(),
        };
        self.links.insert(target, link.clone());
        link
    }
}

/// Why a message did not get an answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("member {slot}: {reason}")]
    Dial { slot: Slot, reason: String },
    #[error("member {slot}: {}", .status.message())]
    Status { slot: Slot, status: Box<tonic::Status> },
    #[error("member {slot} sent no answer within {after:?}")]
    Timeout { slot: Slot, after: Duration },
    #[error("answer of member {slot}")]
    Answer {
        slot: Slot,
        #[source]
        error: InvalidBytes,
    },
    #[error("{reason}")]
    Sender { reason: String },
}

impl From<CallError> for RPCError<TypeConfig> {
    fn from(error: CallError) -> Self {
        let error = AnyError::error(dovetail_process::chain(&error));
        Self::Unreachable(Unreachable::new(&error))
    }
}

impl Link {
    fn slot(&self) -> Slot {
        self.node.slot
    }

    fn message(&self, payload: Bytes) -> pb::RaftMessage {
        pb::RaftMessage { sender: Some(self.hub.sender()), payload }
    }

    fn dial(&self, client: &Result<Client, String>) -> Result<Client, CallError> {
        client.clone().map_err(|reason| CallError::Dial { slot: self.slot(), reason })
    }

    /// An answer counts only when it comes from the disk that the membership names.
    fn accept(&self, answer: pb::RaftMessage) -> Result<Bytes, CallError> {
        let Some(sender) = answer.sender else {
            let reason = format!("member {}: an answer without a sender", self.slot());
            return Err(CallError::Sender { reason });
        };
        if sender.incarnation != self.node.incarnation {
            let reason = format!(
                "member {slot} is incarnation {}, the disk that answers is {}: dovetail member replace {slot}",
                self.node.incarnation,
                sender.incarnation,
                slot = self.slot()
            );
            return Err(CallError::Sender { reason });
        }
        Ok(answer.payload)
    }

    /// One request and its answer on the urgent connection.
    async fn call<F, A>(&self, payload: Bytes, after: Duration, rpc: F) -> Result<Bytes, CallError>
    where
        F: FnOnce(Client, pb::RaftMessage) -> A + Send,
        A: Future<Output = Result<tonic::Response<pb::RaftMessage>, tonic::Status>> + Send,
    {
        let client = self.dial(&self.urgent)?;
        let slot = self.slot();
        let answer = tokio::time::timeout(after, rpc(client, self.message(payload)))
            .await
            .map_err(|_| CallError::Timeout { slot, after })?
            .map_err(|status| CallError::Status { slot, status: Box::new(status) })?;
        self.accept(answer.into_inner())
    }

    fn decoded<T>(&self, decoded: Result<T, InvalidBytes>) -> Result<T, CallError> {
        decoded.map_err(|error| CallError::Answer { slot: self.slot(), error })
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = RaftSnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = codec::encode_append(&request);
        let rpc = |mut client: Client, message| async move { client.heartbeat(message).await };
        let answer = self.call(payload, option.hard_ttl(), rpc).await?;
        Ok(self.decoded(codec::decode_append_response(answer))?)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let mut client = self.dial(&self.appends)?;
            let slot = self.slot();
            let (sender, receiver) = tokio::sync::mpsc::channel(APPENDS_QUEUED);
            let link = self.clone();
            // Encodes ahead of the connection; ends with the requests or with the stream.
            // A stream that stands still is ended by the connection's keep-alive.
            tokio::spawn(async move {
                let mut requests = requests;
                while let Some(request) = requests.next().await {
                    let message = link.message(codec::encode_append(&request));
                    if sender.send(message).await.is_err() {
                        return;
                    }
                }
            });
            let answers = client
                .append(tokio_stream::wrappers::ReceiverStream::new(receiver))
                .await
                .map_err(|status| CallError::Status { slot, status: Box::new(status) })?
                .into_inner();
            let link = &*self;
            let results = answers.map(move |answer| {
                let answer = answer
                    .map_err(|status| CallError::Status { slot, status: Box::new(status) })?;
                let payload = link.accept(answer)?;
                Ok(link.decoded(codec::decode_stream_append(payload))?)
            });
            let results: BoxStream<'s, _> = Box::pin(results);
            Ok(results)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = codec::encode_vote_request(&request);
        let rpc = |mut client: Client, message| async move { client.vote(message).await };
        let answer = self.call(payload, option.hard_ttl(), rpc).await?;
        Ok(self.decoded(codec::decode_vote_response(answer))?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = codec::encode_vote_request(&request);
        let rpc = |mut client: Client, message| async move { client.pre_vote(message).await };
        let answer = self.call(payload, option.hard_ttl(), rpc).await?;
        Ok(self.decoded(codec::decode_vote_response(answer))?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let content: Bytes = snapshot.snapshot;
        let bytes = content.len() as u64;
        let header =
            codec::encode_install_header(&InstallHeader { vote, meta: snapshot.meta, bytes });
        let first = self.message(header);
        let chunks = (0..content.len()).step_by(CHUNK_BYTES).map(move |start| {
            let end = content.len().min(start + CHUNK_BYTES);
            pb::RaftMessage { sender: None, payload: content.slice(start..end) }
        });
        let send = async {
            let slot = self.slot();
            let mut client = self.dial(&self.bulk)?;
            let messages = stream::iter(std::iter::once(first).chain(chunks));
            let answer = client
                .install_snapshot(messages)
                .await
                .map_err(|status| CallError::Status { slot, status: Box::new(status) })?;
            let payload = self.accept(answer.into_inner())?;
            self.decoded(codec::decode_snapshot_response(payload))
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            () = tokio::time::sleep(option.hard_ttl()) => {
                let error = CallError::Timeout { slot: self.slot(), after: option.hard_ttl() };
                let error = AnyError::error(dovetail_process::chain(&error));
                Err(StreamingError::Network(NetworkError::new(&error)))
            }
            answer = send => answer.map_err(|error| RPCError::from(error).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = codec::encode_transfer_request(&request);
        let rpc =
            |mut client: Client, message| async move { client.transfer_leader(message).await };
        let answer = self.call(payload, option.hard_ttl(), rpc).await?;
        Ok(self.decoded(codec::decode_transfer_response(answer))?)
    }
}
