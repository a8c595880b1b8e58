//! The other members, asked directly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dovetail_control::ports::{AdminClient, Asked, Peers, Slot};
use dovetail_process::grpc::{self, ChannelOptions, channel_with};
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::raft_client::RaftClient;
use dovetail_raft_store::{Lack, Piece};
use tonic::transport::Channel;

use super::hub::Hub;
use super::refill::Source;
use super::server::{MESSAGE_BYTES_MAX, RAFT_SNAPSHOT_BYTES_MAX};

/// How long another member may take to say what it knows.
const LOCAL_TIMEOUT: Duration = Duration::from_millis(300);
/// Bytes of that: thousands of subscribers, and some of their problems.
const LOCAL_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// How long rows of another member's ledger may take, and how long a whole state.
const ROWS_TIMEOUT: Duration = Duration::from_secs(10);
const BASE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a disk may take to note durably who it is.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(2);

/// A client of another member's Raft service, on a connection of its own.
pub(crate) fn raft_client(hub: &Hub, slot: Slot) -> Result<RaftClient<Channel>, String> {
    Ok(RaftClient::new(channel(hub, slot)?))
}

/// The same, of whoever answers at `address` with the certificate of that slot.
pub(crate) fn raft_client_at(
    hub: &Hub,
    slot: Slot,
    address: &str,
) -> Result<RaftClient<Channel>, String> {
    Ok(RaftClient::new(channel_at(hub, slot, address)?))
}

/// Tells the member of `slot`, whose disk is empty, that it is node `node_id` of this quorum.
pub(crate) async fn adopt(
    hub: &Hub,
    slot: Slot,
    address: &str,
    node_id: u64,
) -> Result<(), String> {
    let dovetail_raft_store::Owner { cluster_id, ancestors, .. } = hub.owner();
    let request = pb::AdoptRequest { sender: Some(hub.sender()), cluster_id, node_id, ancestors };
    let mut client = raft_client_at(hub, slot, address)?;
    tokio::time::timeout(ADOPT_TIMEOUT, client.adopt(request))
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map(drop)
        .map_err(|status| status.message().to_owned())
}

fn address_of(hub: &Hub, slot: Slot) -> Result<String, String> {
    hub.address(slot).ok_or_else(|| format!("member {slot} has no address"))
}

fn channel(hub: &Hub, slot: Slot) -> Result<Channel, String> {
    channel_at(hub, slot, &address_of(hub, slot)?)
}

fn channel_at(hub: &Hub, slot: Slot, address: &str) -> Result<Channel, String> {
    let options = ChannelOptions { expected_slot: Some(slot), ..ChannelOptions::default() };
    channel_with(&hub.tls, address, &options).map_err(|error| dovetail_process::chain(&error))
}

/// Keeps one connection to each other member.
#[derive(Debug)]
pub(crate) struct OtherMembers {
    hub: Arc<Hub>,
    /// With the addresses that they were made for.
    channels: Mutex<BTreeMap<Slot, (String, Channel)>>,
}

impl OtherMembers {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, channels: Mutex::default() }
    }

    fn channel(&self, slot: Slot) -> Result<Channel, String> {
        let address = address_of(&self.hub, slot)?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = channels.get(&slot).filter(|(of, _)| *of == address) {
            return Ok(known.clone());
        }
        let made = channel_at(&self.hub, slot, &address)?;
        channels.insert(slot, (address, made.clone()));
        Ok(made)
    }
}

impl Peers for OtherMembers {
    async fn local(&self, slot: Slot, asked: Asked) -> Result<pb::LocalResponse, String> {
        let mut client =
            RaftClient::new(self.channel(slot)?).max_decoding_message_size(LOCAL_BYTES_MAX);
        let Asked { problems, traffic, clock_only } = asked;
        let sender = Some(self.hub.sender());
        let request = pb::LocalRequest { sender, problems, traffic, clock_only };
        tokio::time::timeout(LOCAL_TIMEOUT, client.local(request))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map(tonic::Response::into_inner)
            .map_err(|status| status.message().to_owned())
    }

    async fn ledger_check(
        &self,
        slot: Slot,
        index: Option<u64>,
        recompute: bool,
    ) -> Result<pb::MemberLedger, String> {
        let request = pb::LedgerRequest { sender: Some(self.hub.sender()), index, recompute };
        RaftClient::new(self.channel(slot)?)
            .ledger(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| status.message().to_owned())
    }

    async fn held(&self, slot: Slot, index: u64) -> Result<pb::HeldResponse, String> {
        let request = pb::HeldRequest { sender: Some(self.hub.sender()), index };
        RaftClient::new(self.channel(slot)?)
            .held(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| status.message().to_owned())
    }

    fn admin(&self, slot: Slot) -> Result<AdminClient, String> {
        Ok(AdminClient::new(self.channel(slot)?))
    }
}

impl Source for OtherMembers {
    async fn rows(&self, slot: Slot, lack: Lack) -> Result<Piece, String> {
        let mut client =
            RaftClient::new(self.channel(slot)?).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let Lack { first, last } = lack;
        let request = pb::LedgerRowsRequest { sender: Some(self.hub.sender()), first, last };
        let answer = tokio::time::timeout(ROWS_TIMEOUT, client.ledger_rows(request))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|status| grpc::describe(&status))?
            .into_inner();
        let previous = match answer.previous.as_slice().try_into() {
            Ok(previous) => previous,
            Err(_) => return Err("an answer without the hash before its rows".to_owned()),
        };
        Ok(Piece { previous, rows: answer.rows })
    }

    async fn base(&self, slot: Slot) -> Result<Option<Bytes>, String> {
        let mut client = RaftClient::new(self.channel(slot)?);
        let sender = Some(self.hub.sender());
        let read = async {
            let mut chunks =
                client.ledger_base(pb::LedgerBaseRequest { sender }).await?.into_inner();
            let mut content = BytesMut::new();
            while let Some(chunk) = chunks.message().await? {
                if content.len() + chunk.content.len() > RAFT_SNAPSHOT_BYTES_MAX {
                    return Err(tonic::Status::resource_exhausted(format!(
                        "the state is above {RAFT_SNAPSHOT_BYTES_MAX} bytes"
                    )));
                }
                content.extend_from_slice(&chunk.content);
            }
            Ok((!content.is_empty()).then(|| content.freeze()))
        };
        tokio::time::timeout(BASE_TIMEOUT, read)
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|status| grpc::describe(&status))
    }
}
