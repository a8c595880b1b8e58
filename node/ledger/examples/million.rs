//! How fast a log is replayed: a million synthetic entries, on one core.
//!
//! ```text
//! cargo run --release -p dovetail-ledger --example million [ENTRIES] [SERVICES]
//! ```
//!
//! Rollouts over so many services (100 unless told): tasks that start, run, are stopped and
//! go, remarks in between, and a checkpoint after every thousand entries.

use std::error::Error;
use std::io::{BufReader, BufWriter, Seek as _, Write as _};
use std::time::Instant;

use dovetail_ledger::chain::BEGINNING;
use dovetail_ledger::{ExportReader, Exporter, Header, LedgerHash, Until, row_hash, verify};
use dovetail_proto::convert::encode_entry;
use dovetail_proto::v1 as wire;
use dovetail_routing::fact::{
    Change, DesiredState, EndpointMode, LabelValue, Network, Observed, Scale, Service,
    SwarmVersion, Task, TaskState,
};
use dovetail_routing::names::{ServiceId, TaskId};
use dovetail_routing::state::{Digester, State};
use dovetail_routing::{Command, Digest, Entry, LogIndex, Payload};

const CLUSTER: &str = "benchmark";
/// Running tasks of a service.
const SLOTS: u64 = 10;

/// Writes rows into a file, and applies them to know what checkpoints must say.
struct Log<W> {
    out: Exporter<W>,
    head: LedgerHash,
    index: u64,
    state: State,
    digester: Digester,
}

impl<W: std::io::Write> Log<W> {
    fn write(&mut self, payload: Payload) -> Result<(), Box<dyn Error>> {
        let entry = Entry {
            schema_version: 1,
            leader_time_ms: 1_700_000_000_000 + self.index,
            actor: "dovetail://member/1".into(),
            request_id: "".into(),
            cause: "an event".into(),
            payload,
        };
        let mut row = wire::LedgerRow {
            index: self.index,
            term: 1,
            entry: encode_entry(&entry).into(),
            kind: wire::LedgerRowKind::Entry.into(),
            hash: Vec::new(),
        };
        self.head = row_hash(&self.head, CLUSTER, &row);
        row.hash = self.head.to_vec();
        self.out.row(row)?;
        self.state.apply(LogIndex(self.index), &entry);
        self.index += 1;
        Ok(())
    }

    fn observe(&mut self, change: Change) -> Result<(), Box<dyn Error>> {
        let changes = vec![change];
        self.write(Payload::Observed(Observed { swarm: "s".into(), changes, events: Vec::new() }))
    }

    fn checkpoint(&mut self) -> Result<(), Box<dyn Error>> {
        let state = self.digester.digest(&self.state);
        let (index, ledger) = (LogIndex(self.index - 1), Digest(self.head));
        self.write(Payload::Checkpoint { index, state, ledger })
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let entries: u64 = arguments.next().map_or(Ok(1_000_000), |given| given.parse())?;
    let services: u64 = arguments.next().map_or(Ok(100), |given| given.parse())?;
    let mut file = tempfile::tempfile()?;
    let header = Header {
        cluster_id: CLUSTER.to_owned(),
        ancestors: Vec::new(),
        first: 0,
        made_at_ms: 0,
        exporter: "dovetail://member/1".to_owned(),
        previous: BEGINNING,
    };
    let mut log = Log {
        out: Exporter::begin(BufWriter::new(file.try_clone()?), &header, None)?,
        head: BEGINNING,
        index: 0,
        state: State::default(),
        digester: Digester::default(),
    };
    let front = Network { id: "front".into(), name: "front".into(), ingress: false };
    log.observe(Change::Network(front))?;
    for number in 0..services {
        log.observe(service(number))?;
    }
    while log.index < entries {
        let number = log.index;
        match number % 1_000 {
            999 => log.checkpoint()?,
            500 => log.write(Payload::Command(Command::Annotate { text: "a remark".into() }))?,
            _ => log.observe(task(number, services))?,
        }
    }
    let due = log.digester.digest(&log.state);
    log.out.finish(0, |_| Ok(None))?.0.flush()?;
    let bytes = file.metadata()?.len();
    println!("{entries} entries of {services} services: {} MB", bytes / 1_000_000);

    let second = |what: &str, began: Instant| {
        let seconds = began.elapsed().as_secs_f64();
        println!("{what}: {seconds:.2} s, {:.0} entries/s", entries as f64 / seconds);
    };
    file.rewind()?;
    let began = Instant::now();
    let mut reader = ExportReader::open(BufReader::new(&file))?;
    while reader.next_row()?.is_some() {}
    second("chain alone", began);

    file.rewind()?;
    let began = Instant::now();
    let verified = verify(BufReader::new(&file), Until::End)?;
    second("verified and replayed", began);
    let found = verified.replay.state().map(State::digest);
    println!(
        "{} checkpoints agree, difference: {:?}, end: {}",
        verified.replay.checkpoints(),
        verified.replay.divergence(),
        if found == Some(due) { "the same" } else { "another" }
    );
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("peak of memory: {}", peak.unwrap_or("unknown"));
    Ok(())
}

fn service(number: u64) -> Change {
    let label = |key: &str, value: String| {
        (format!("com.docker.lb.{key}").into(), LabelValue::Text(value.into()))
    };
    let host = label("hosts", format!("s{number}.example"));
    Change::Service(Service {
        id: ServiceId::from(format!("service-{number}").as_str()),
        version: SwarmVersion(1),
        name: format!("s{number}").into(),
        created_at: "2026-11-01T00:00:00Z".into(),
        labels: [host, label("port", "8080".to_owned())].into(),
        networks: vec!["front".into()],
        vips: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
        host_ports: Vec::new(),
        scale: Scale::Replicated(SLOTS),
        update_state: "".into(),
    })
}

/// What happens next to one of the tasks: it starts, runs, is to stop, is gone.
fn task(number: u64, services: u64) -> Change {
    let place = (number / 4) % (services * SLOTS);
    let (service, slot) = (place / SLOTS, place % SLOTS);
    let generation = number / 4 / (services * SLOTS);
    let id = TaskId::from(format!("task-{service}-{slot}-{generation}").as_str());
    let (desired, state) = match number % 4 {
        0 => (DesiredState::Running, TaskState::Starting),
        1 => (DesiredState::Running, TaskState::Running),
        2 => (DesiredState::Shutdown, TaskState::Running),
        _ => return Change::TaskGone(id),
    };
    let [low, high, ..] = place.to_le_bytes();
    Change::Task(Task {
        id,
        version: SwarmVersion(number),
        service: ServiceId::from(format!("service-{service}").as_str()),
        slot,
        node: "node-1".into(),
        desired,
        state,
        addresses: vec![("front".into(), [10, 1, high, low].into())],
        host_ports: Vec::new(),
    })
}
