//! Between the wire's messages and the core's types; every refusal names its field.
//!
//! Entries are kept for years: the bytes of each kind are fixed by `tests/golden`.

use std::sync::Arc;

use dovetail_routing::entry::SCHEMA_VERSION;
use dovetail_routing::{Command, Digest, Entry, LogIndex, Payload};
use prost::Message;

use crate::v1 as pb;

mod admin;
mod command;
mod config;
mod fact;

/// Why a message is not an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntry {
    #[error("the bytes are not a protobuf message of this kind")]
    Bytes(#[source] prost::DecodeError),
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} {given:?}: {reason}")]
    Value { field: &'static str, given: String, reason: String },
}

/// Refuses `given` in `field`; the value is shortened, since it ends in messages.
fn invalid(field: &'static str, given: impl ToString, reason: impl ToString) -> InvalidEntry {
    let given = given.to_string().chars().take(256).collect();
    InvalidEntry::Value { field, given, reason: reason.to_string() }
}

/// The bytes of an entry as the log keeps them.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    pb::Entry::from(entry).encode_to_vec()
}

/// The bytes of a configuration as an entry carries them.
pub fn encode_config(config: &dovetail_routing::entry::ClusterConfig) -> Vec<u8> {
    pb::ApplyConfig::from(config).encode_to_vec()
}

/// Reads the bytes of an entry.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, InvalidEntry> {
    pb::Entry::decode(bytes).map_err(InvalidEntry::Bytes)?.try_into()
}

impl From<&Entry> for pb::Entry {
    fn from(entry: &Entry) -> Self {
        use pb::entry::Payload as P;
        Self {
            schema_version: entry.schema_version,
            leader_time_ms: entry.leader_time_ms,
            actor: entry.actor.to_string(),
            request_id: entry.request_id.to_string(),
            cause: entry.cause.to_string(),
            payload: Some(match &entry.payload {
                Payload::Observed(observed) => P::Observed(observed.into()),
                Payload::Resynced(resynced) => P::Resynced(resynced.into()),
                Payload::Command(command) => P::Command(command.into()),
                Payload::Tick => P::Tick(pb::Tick {}),
                Payload::Checkpoint { index, state, ledger } => P::Checkpoint(pb::Checkpoint {
                    index: index.0,
                    state: state.0.to_vec(),
                    ledger: ledger.0.to_vec(),
                }),
            }),
        }
    }
}

impl From<Entry> for pb::Entry {
    fn from(entry: Entry) -> Self {
        Self::from(&entry)
    }
}

impl TryFrom<pb::Entry> for Entry {
    type Error = InvalidEntry;

    fn try_from(entry: pb::Entry) -> Result<Self, InvalidEntry> {
        use pb::entry::Payload as P;
        let payload = match entry.payload {
            Some(P::Observed(observed)) => Payload::Observed(observed.try_into()?),
            Some(P::Resynced(resynced)) => Payload::Resynced(resynced.into()),
            Some(P::Command(command)) => Payload::Command(command.try_into()?),
            Some(P::Tick(pb::Tick {})) => Payload::Tick,
            Some(P::Checkpoint(checkpoint)) => Payload::Checkpoint {
                index: LogIndex(checkpoint.index),
                state: digest("checkpoint.state", &checkpoint.state)?,
                ledger: digest("checkpoint.ledger", &checkpoint.ledger)?,
            },
            // A newer schema's payload: readable, so that `apply` can reject it.
            None if entry.schema_version > SCHEMA_VERSION => {
                Payload::Command(Command::Unknown { name: "of a newer schema".into() })
            }
            None => return Err(InvalidEntry::Missing { field: "entry.payload" }),
        };
        Ok(Self {
            schema_version: entry.schema_version,
            leader_time_ms: entry.leader_time_ms,
            actor: entry.actor.into(),
            request_id: entry.request_id.into(),
            cause: entry.cause.into(),
            payload,
        })
    }
}

fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, InvalidEntry> {
    match bytes.try_into() {
        Ok(bytes) => Ok(Digest(bytes)),
        Err(_) => Err(invalid(field, format!("{} bytes", bytes.len()), "must be 32 bytes")),
    }
}

/// Converts each item of a list, and stops at the first that is refused.
fn each<A, B>(items: Vec<A>) -> Result<Vec<B>, InvalidEntry>
where
    B: TryFrom<A, Error = InvalidEntry>,
{
    items.into_iter().map(B::try_from).collect()
}

/// A list without duplicates as a map; the key of the first duplicate is refused.
fn unique<V>(
    field: &'static str,
    pairs: impl IntoIterator<Item = Result<(Arc<str>, V), InvalidEntry>>,
) -> Result<std::collections::BTreeMap<Arc<str>, V>, InvalidEntry> {
    let mut map = std::collections::BTreeMap::new();
    for pair in pairs {
        let (key, value) = pair?;
        if map.insert(Arc::clone(&key), value).is_some() {
            return Err(invalid(field, key, "is there twice"));
        }
    }
    Ok(map)
}
