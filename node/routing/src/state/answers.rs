//! Answers to commands by request id, so that asking twice orders once.

use std::sync::Arc;

use imbl::OrdMap;

use crate::codec::Canonical;
use crate::entry::{Applied, Command, Entry, LogIndex, Rejection};

/// Commands remembered; the oldest is forgotten first.
pub const ANSWERS_MAX: usize = 100_000;

/// What was answered to a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) index: LogIndex,
    /// BLAKE3 of the command's canonical bytes.
    pub(super) command: [u8; 32],
    pub(super) applied: Applied,
}

/// The answers of the last [`ANSWERS_MAX`] commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// By actor and request id.
    pub(super) by_request: OrdMap<(Arc<str>, Arc<str>), Answer>,
    pub(super) by_index: OrdMap<LogIndex, (Arc<str>, Arc<str>)>,
}

impl Answers {
    /// Puts the index together again, after the map was decoded.
    pub(super) fn index(&mut self) {
        let pair = |(key, answer): (&(Arc<str>, Arc<str>), &Answer)| (answer.index, key.clone());
        self.by_index = self.by_request.iter().map(pair).collect();
    }

    pub(super) fn get(&self, actor: &str, request_id: &str) -> Option<&Answer> {
        self.by_request.get(&(Arc::from(actor), Arc::from(request_id)))
    }

    /// The answer to a request id that was used before: the same, or a refusal.
    pub(super) fn again(&self, entry: &Entry, command: &Command) -> Option<Applied> {
        if entry.request_id.is_empty() {
            return None;
        }
        let first = self.get(&entry.actor, &entry.request_id)?;
        Some(if first.command == hash(command) {
            first.applied.clone()
        } else {
            Applied::Rejected(Rejection::RequestIdReused {
                request_id: Arc::clone(&entry.request_id),
                index: first.index,
            })
        })
    }

    /// Remembers the first answer to a request id.
    pub(super) fn remember(
        &mut self,
        index: LogIndex,
        entry: &Entry,
        command: &Command,
        applied: &Applied,
    ) {
        if entry.request_id.is_empty() {
            return;
        }
        let key = (Arc::clone(&entry.actor), Arc::clone(&entry.request_id));
        let answer = Answer { index, command: hash(command), applied: applied.clone() };
        self.by_request.insert(key.clone(), answer);
        self.by_index.insert(index, key);
        while self.by_index.len() > ANSWERS_MAX {
            let Some((oldest, key)) = self.by_index.get_min().cloned() else { break };
            self.by_index.remove(&oldest);
            self.by_request.remove(&key);
        }
    }
}

fn hash(command: &Command) -> [u8; 32] {
    let mut bytes = Vec::new();
    command.write(&mut bytes);
    *blake3::hash(&bytes).as_bytes()
}

crate::codec::fields! { Answer { index command applied } }
