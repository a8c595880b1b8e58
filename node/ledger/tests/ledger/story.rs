//! A log as a quorum writes it: a swarm's objects, remarks, checkpoints; and its ledger.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use dovetail_ledger::chain::BEGINNING;
use dovetail_ledger::{Exporter, Header, LedgerHash, row_hash};
use dovetail_proto::convert::encode_entry;
use dovetail_proto::v1 as wire;
use dovetail_routing::fact::{
    Change, DesiredState, EndpointMode, LabelValue, Network, Observed, Scale, Service,
    SwarmVersion, Task, TaskState,
};
use dovetail_routing::names::{ServiceId, TaskId};
use dovetail_routing::state::State;
use dovetail_routing::{Command, Digest, Entry, LogIndex, Payload};

pub(crate) const CLUSTER: &str = "c1";
/// The time of the entry at an index.
pub(crate) const MS_EACH: u64 = 1_000;

/// Writes a log, as members apply it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) rows: Vec<wire::LedgerRow>,
    pub(crate) state: State,
    pub(crate) checkpoints: u64,
}

impl Story {
    /// A log of `entries` with a checkpoint after every tenth.
    pub(crate) fn of(entries: u64) -> Self {
        let mut story = Self::default();
        story.push(None, wire::LedgerRowKind::Membership);
        story.push(None, wire::LedgerRowKind::Blank);
        let front = Network { id: "front".into(), name: "front".into(), ingress: false };
        story.observe(vec![Change::Network(front), service(1), service(2)]);
        while (story.rows.len() as u64) < entries {
            let number = story.rows.len() as u64;
            match number % 10 {
                9 => story.checkpoint(),
                5 => story.remark(&format!("remark {number}")),
                _ => story.observe(vec![task(number)]),
            }
        }
        story
    }

    pub(crate) fn head(&self) -> LedgerHash {
        self.rows.last().map_or(BEGINNING, |row| row.hash.as_slice().try_into().expect("a hash"))
    }

    pub(crate) fn next(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.index + 1)
    }

    fn push(&mut self, payload: Option<Payload>, kind: wire::LedgerRowKind) {
        let index = self.next();
        let mut bytes = Vec::new();
        if let Some(payload) = payload {
            let entry = Entry {
                schema_version: 1,
                leader_time_ms: index * MS_EACH,
                actor: "dovetail://member/1".into(),
                request_id: if kind == wire::LedgerRowKind::Entry { "" } else { "x" }.into(),
                cause: "a story".into(),
                payload,
            };
            bytes = encode_entry(&entry);
            self.state.apply(LogIndex(index), &entry);
        }
        let mut row = wire::LedgerRow {
            index,
            term: 1,
            entry: bytes.into(),
            kind: kind.into(),
            hash: Vec::new(),
        };
        row.hash = row_hash(&self.head(), CLUSTER, &row).to_vec();
        self.rows.push(row);
    }

    pub(crate) fn write(&mut self, payload: Payload) {
        self.push(Some(payload), wire::LedgerRowKind::Entry);
    }

    pub(crate) fn observe(&mut self, changes: Vec<Change>) {
        self.write(Payload::Observed(Observed { swarm: "s".into(), changes, events: Vec::new() }));
    }

    pub(crate) fn remark(&mut self, text: &str) {
        self.write(Payload::Command(Command::Annotate { text: text.into() }));
    }

    /// What a majority reported of the last entry.
    pub(crate) fn checkpoint(&mut self) {
        self.checkpoint_with(self.state.digest());
    }

    pub(crate) fn checkpoint_with(&mut self, state: Digest) {
        let (index, ledger) = (LogIndex(self.next() - 1), Digest(self.head()));
        self.checkpoints += 1;
        self.write(Payload::Checkpoint { index, state, ledger });
    }

    /// The file of all rows from `first` on, with the state before them as its base.
    pub(crate) fn export(&self, first: u64) -> Vec<u8> {
        let at = usize::try_from(first).expect("small");
        let mut before = Self::default();
        for row in &self.rows[..at] {
            before.rows.push(row.clone());
            if row.kind() == wire::LedgerRowKind::Entry {
                let entry = dovetail_proto::convert::decode_entry(&row.entry).expect("an entry");
                before.state.apply(LogIndex(row.index), &entry);
            }
        }
        let state = before.state.encode();
        let base = (first > 0).then(|| (&state[..], before.state.digest()));
        file(&header(first, before.head()), base, &self.rows[at..])
    }
}

pub(crate) fn header(first: u64, previous: LedgerHash) -> Header {
    Header {
        cluster_id: CLUSTER.to_owned(),
        ancestors: Vec::new(),
        first,
        made_at_ms: 1,
        exporter: "dovetail://member/1".to_owned(),
        previous,
    }
}

pub(crate) fn file(
    header: &Header,
    base: Option<(&[u8], Digest)>,
    rows: &[wire::LedgerRow],
) -> Vec<u8> {
    let mut exporter = Exporter::begin(Vec::new(), header, base).expect("begun");
    for row in rows {
        exporter.row(row.clone()).expect("the next row");
    }
    exporter.finish(2, |_| Ok(None)).expect("finished").0
}

pub(crate) fn read(bytes: &[u8]) -> Cursor<&[u8]> {
    Cursor::new(bytes)
}

fn service(number: u64) -> Change {
    let label = |key: &str, value: String| {
        (format!("com.docker.lb.{key}").into(), LabelValue::Text(value.into()))
    };
    let host = label("hosts", format!("s{number}.example"));
    published(number, [host, label("port", "8080".to_owned())].into())
}

/// A service that sends its clients to another one.
pub(crate) fn redirects(number: u64, to: u64) -> Change {
    let label = |key: &str, value: String| {
        (format!("com.docker.lb.{key}").into(), LabelValue::Text(value.into()))
    };
    let host = format!("s{number}.example");
    let redirect = label("redirects", format!("{host},http://s{to}.example"));
    let labels = [label("hosts", host), label("port", "8080".to_owned()), redirect];
    published(number, labels.into())
}

fn published(number: u64, labels: BTreeMap<Arc<str>, LabelValue>) -> Change {
    Change::Service(Service {
        id: ServiceId::from(format!("service-{number}").as_str()),
        version: SwarmVersion(1),
        name: format!("s{number}").into(),
        created_at: "".into(),
        labels,
        networks: vec!["front".into()],
        vips: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
        host_ports: Vec::new(),
        scale: Scale::Replicated(4),
        update_state: "".into(),
    })
}

/// A task that comes, and goes on as the numbers return.
fn task(number: u64) -> Change {
    let [low, ..] = (number % 8).to_le_bytes();
    Change::Task(Task {
        id: TaskId::from(format!("task-{low}").as_str()),
        version: SwarmVersion(number),
        service: ServiceId::from(format!("service-{}", 1 + low % 2).as_str()),
        slot: low.into(),
        node: "node".into(),
        desired: DesiredState::Running,
        state: if number.is_multiple_of(3) { TaskState::Starting } else { TaskState::Running },
        addresses: vec![("front".into(), [10, 0, 0, low + 1].into())],
        host_ports: Vec::new(),
    })
}
