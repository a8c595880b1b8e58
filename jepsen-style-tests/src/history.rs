//! What happened in a run, in the order of one clock: operations and what each became,
//! observations, faults. Kept as JSON lines, and checked again from the file.
//!
//! Times are microseconds since the run began, by the harness's monotonic clock: all
//! clients live in one process, so the order of lines is the order of events.

mod recorder;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

pub use recorder::{Began, Recorder};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since the run began.
    pub at: u64,
    #[serde(flatten)]
    pub what: What,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum What {
    /// A client begins an operation; `id` ties its end to it.
    Invoke {
        id: u64,
        client: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        request_id: String,
        op: Op,
    },
    /// It was answered.
    Ok { id: u64, answer: Answer },
    /// It was refused before it could have any effect.
    Fail { id: u64, why: String },
    /// Timed out or cut off: it may take effect now, later or never.
    Unknown { id: u64, why: String },
    /// Somebody saw something without asking for it to change.
    Seen { by: String, what: Seen },
    /// A fault begins.
    FaultBegun { name: String, on: String },
    /// It is over, and this is known of it.
    FaultEnded { name: String, on: String, nemesis: Nemesis },
    /// These faults were asked for: each has to have taken effect.
    Demanded { faults: Vec<String> },
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Op {
    /// The value of a register.
    Read {
        key: String,
    },
    Write {
        key: String,
        value: u64,
    },
    /// To `to`, if it is `from` when the order is applied.
    Cas {
        key: String,
        from: u64,
        to: u64,
    },
    /// A remark with this text.
    Annotate {
        text: String,
    },
    /// All remarks after the entry `from`.
    ReadRemarks {
        from: u64,
    },
    /// The steps of a route's canary, as the ledger has them.
    ReadSteps {
        route: String,
    },
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "a", rename_all = "kebab-case")]
pub enum Answer {
    /// It is in the log at `index`; `again` if this request id was answered before.
    Done {
        index: u64,
        #[serde(default)]
        again: bool,
    },
    /// A register's value; `None` before the first write.
    Value { value: Option<u64> },
    /// Compare-and-set found something else.
    Mismatch,
    /// Every remark in the entries after the one asked for, up to `upto`.
    Remarks { upto: u64, rows: Vec<(u64, String)> },
    /// Every step up to now, oldest first: the entry, the run that it belongs to, the step.
    Steps { rows: Vec<Step> },
}

/// A canary's step, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub index: u64,
    pub run: u64,
    pub step: u32,
}

/// What is seen without an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "s", rename_all = "kebab-case")]
pub enum Seen {
    /// A subscriber opened the feed's stream, with what it has.
    FeedOpened {
        member: String,
        cluster_id: String,
        revision: u64,
    },
    /// It was sent a snapshot; `sound` if its bytes have this digest.
    Snapshot {
        cluster_id: String,
        revision: u64,
        digest: String,
        sound: bool,
    },
    /// It was told the newest revision.
    KeepAlive {
        revision: u64,
        leader_silent_ms: u64,
    },
    FeedClosed {
        why: String,
    },
    /// What decides a proxy's requests.
    InForce {
        revision: u64,
    },
    /// So many requests were answered through a proxy since the last such line.
    Answered {
        proxy: String,
        requests: u64,
    },
    /// A request got no good answer.
    RequestFailed {
        proxy: String,
        began: u64,
        why: String,
    },
    /// A proxy cannot be asked from here on: it does not run, or is cut off.
    ProxyDown {
        proxy: String,
    },
    /// It can be asked again.
    ProxyUp {
        proxy: String,
    },
    /// All faults are over: from here on everything has to come back.
    Healed,
    /// It writes, and everybody stands at one place.
    Recovered,
    /// A process ended, and nobody had asked it to.
    Ended {
        why: String,
    },
    /// A process went on that has to end: its disk had failed.
    WentOn {
        why: String,
    },
    /// Where one of them stands at the end: revision and digest by service cluster.
    Standing {
        index: u64,
        service_clusters: BTreeMap<String, (u64, String)>,
    },
    /// What the run did, for the report.
    Note {
        text: String,
    },
}

/// What a fault injector knows afterwards; there is no plain "failed".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nemesis {
    /// It took effect, and somebody looked.
    Installed,
    /// It cannot be had here.
    Skipped { why: String },
    /// It may have taken effect or not.
    Indeterminate { why: String },
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub events: Vec<Event>,
}

/// An operation with its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<'h> {
    pub client: &'h str,
    pub request_id: &'h str,
    pub op: &'h Op,
    /// The place of its beginning among all events.
    pub begun: usize,
    pub end: End<'h>,
}

/// How an operation ended, and at which place among all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<'h> {
    Ok(usize, &'h Answer),
    Fail,
    /// Also when the run ended first.
    Unknown,
}

impl History {
    /// Reads JSON lines. A last line without its end is left out: the run was cut off.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        let mut events = Vec::new();
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        loop {
            line.clear();
            lines.read_line(&mut line).with_context(|| path.display().to_string())?;
            if !line.ends_with('\n') {
                return Ok(Self { events });
            }
            let number = events.len() + 1;
            let event = serde_json::from_str(&line)
                .with_context(|| format!("{}, line {number}: {}", path.display(), line.trim()))?;
            events.push(event);
        }
    }

    /// All operations by their beginning, each with its end.
    pub fn operations(&self) -> Vec<Operation<'_>> {
        let mut operations: Vec<Operation<'_>> = Vec::new();
        let mut open = BTreeMap::new();
        for (place, event) in self.events.iter().enumerate() {
            let (id, end) = match &event.what {
                What::Invoke { id, client, request_id, op } => {
                    open.insert(*id, operations.len());
                    let end = End::Unknown;
                    operations.push(Operation { client, request_id, op, begun: place, end });
                    continue;
                }
                What::Ok { id, answer } => (id, End::Ok(place, answer)),
                What::Fail { id, .. } => (id, End::Fail),
                What::Unknown { id, .. } => (id, End::Unknown),
                What::Seen { .. }
                | What::FaultBegun { .. }
                | What::FaultEnded { .. }
                | What::Demanded { .. } => continue,
            };
            let of = open.remove(id).and_then(|position| operations.get_mut(position));
            if let Some(operation) = of {
                operation.end = end;
            }
        }
        operations
    }

    /// All observations with their place.
    pub fn seen(&self) -> impl Iterator<Item = (usize, u64, &str, &Seen)> {
        self.events.iter().enumerate().filter_map(|(place, event)| match &event.what {
            What::Seen { by, what } => Some((place, event.at, by.as_str(), what)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let recorder = Recorder::create(&path).unwrap();
        let op = Op::Cas { key: "r1".into(), from: 3, to: 4 };
        let lost = recorder.invoke("one", "id-1", op.clone());
        let done = recorder.invoke("two", "", Op::Read { key: "r1".into() });
        recorder.ok(done, Answer::Value { value: Some(3) });
        recorder.unknown(lost, "no answer within 5s");
        recorder.seen("proxy-1", Seen::InForce { revision: 7 });
        recorder.event(What::FaultEnded {
            name: "kill".into(),
            on: "member 1".into(),
            nemesis: Nemesis::Skipped { why: "no root".into() },
        });
        let written = recorder.finish().unwrap();
        let read = History::load(&path).unwrap();
        assert_eq!(read, written);
        let operations = read.operations();
        assert_eq!(operations.len(), 2);
        assert_eq!((operations[0].op, operations[0].end), (&op, End::Unknown));
        let three = Answer::Value { value: Some(3) };
        assert_eq!(operations[1].end, End::Ok(2, &three));

        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(History::load(&path).unwrap().events.len(), 5, "the last line was cut off");
        std::fs::write(&path, "{\"at\":1,\"type\":\"dance\"}\n").unwrap();
        let error = format!("{:#}", History::load(&path).unwrap_err());
        assert!(error.contains("line 1") && error.contains("dance"), "{error}");
    }
}
