//! The other members, asked directly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dovetail_control::ports::{AdminClient, Asked, Peers, Slot};
use dovetail_process::grpc::{ChannelOptions, channel_with};
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::raft_client::RaftClient;
use tonic::transport::Channel;

use super::hub::Hub;

/// How long another member may take to say what it knows.
const LOCAL_TIMEOUT: Duration = Duration::from_millis(300);
/// Bytes of that: thousands of subscribers, and some of their problems.
const LOCAL_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// A client of another member's Raft service, on a connection of its own.
pub(crate) fn raft_client(hub: &Hub, slot: Slot) -> Result<RaftClient<Channel>, String> {
    Ok(RaftClient::new(channel(hub, slot)?))
}

fn channel(hub: &Hub, slot: Slot) -> Result<Channel, String> {
    let address = hub.address(slot).ok_or_else(|| format!("member {slot} has no address"))?;
    let options = ChannelOptions { expected_slot: Some(slot), ..ChannelOptions::default() };
    channel_with(&hub.tls, &address, &options).map_err(|error| dovetail_process::chain(&error))
}

/// Keeps one connection to each other member.
#[derive(Debug)]
pub(crate) struct OtherMembers {
    hub: Arc<Hub>,
    channels: Mutex<BTreeMap<Slot, Channel>>,
}

impl OtherMembers {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, channels: Mutex::default() }
    }

    fn channel(&self, slot: Slot) -> Result<Channel, String> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = channels.get(&slot) {
            return Ok(known.clone());
        }
        let made = channel(&self.hub, slot)?;
        channels.insert(slot, made.clone());
        Ok(made)
    }
}

impl Peers for OtherMembers {
    async fn local(&self, slot: Slot, asked: Asked) -> Result<pb::LocalResponse, String> {
        let mut client =
            RaftClient::new(self.channel(slot)?).max_decoding_message_size(LOCAL_BYTES_MAX);
        let Asked { problems, traffic } = asked;
        let request = pb::LocalRequest { sender: Some(self.hub.sender()), problems, traffic };
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

    fn admin(&self, slot: Slot) -> Result<AdminClient, String> {
        Ok(AdminClient::new(self.channel(slot)?))
    }
}
