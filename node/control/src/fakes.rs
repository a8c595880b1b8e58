//! Stand-ins at the ports: a vector for a log, a Docker that shows what it is told,
//! and connections in memory whose identity is given.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dovetail_ledger::{LedgerHash, row_hash};
use dovetail_process::grpc::PeerInfo;
use dovetail_proto::convert::encode_entry;
use dovetail_proto::v1 as pb;
use dovetail_routing::command::{MemberChange, MembersChanged};
use dovetail_routing::entry::{
    Answered, Applied, Entry, LogIndex, Payload, Rejection, SCHEMA_VERSION,
};
use dovetail_routing::fact::{
    Change, DesiredState, EndpointMode, LabelValue, Listing, Network, Scale, Service, SwarmVersion,
    Task, TaskState,
};
use dovetail_routing::names::{NetworkId, ServiceId, SwarmId, SwarmNodeId, TaskId};
use dovetail_routing::snapshot::Digest;
use dovetail_routing::state::State;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};

use crate::observe::{Observation, Observe};
use crate::ports::{
    AdminClient, Asked, Fence, LedgerStart, Marks, Member, Peers, Proposal, ProposeError, Quorum,
    QuorumView, Slot,
};

/// Waits for a level, at most ten (mostly virtual) seconds.
pub(crate) async fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let wait = async {
        while !reached() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// How the next proposals end.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// Not written.
    Fails(ProposeError),
    /// Written, and the proposer is not told.
    WrittenUnknown,
}

/// A quorum of one whose log is a vector.
#[derive(Debug)]
pub(crate) struct FakeQuorum {
    log: Mutex<Vec<Entry>>,
    fates: Mutex<VecDeque<Fate>>,
    /// Entries with this text in a change are rejected, as if above a limit.
    pub(crate) poison: Mutex<Option<String>>,
    /// Changes of members, with the entries that ordered them.
    pub(crate) members_changed: Mutex<Vec<(MembersChanged, LogIndex)>>,
    state: watch::Sender<Arc<State>>,
    pub(crate) view: watch::Sender<QuorumView>,
    pub(crate) cut_off: AtomicBool,
    /// Proposals are never answered.
    pub(crate) hangs: AtomicBool,
    pub(crate) silent_ms: AtomicU64,
    pub(crate) marks: Mutex<Marks>,
    pub(crate) held: Mutex<Option<pb::HeldResponse>>,
    pub(crate) diverged: Mutex<Option<String>>,
    pub(crate) stepped_down: AtomicBool,
    pub(crate) clock_correction_ms: AtomicI64,
    /// Rows up to this index are trimmed; the state there is kept unless `base_lost`.
    pub(crate) trimmed: AtomicU64,
    pub(crate) base_lost: AtomicBool,
    /// Where reads of the ledger began.
    pub(crate) ledger_reads: Mutex<Vec<u64>>,
    /// When its clock showed one second after 1970.
    began: Instant,
}

pub(crate) const FENCE: Fence = Fence { term: 1, node: 1 };

impl FakeQuorum {
    /// Member 1 of three, which follows member 2.
    pub(crate) fn follower() -> Arc<Self> {
        let member = |slot| Member {
            slot,
            address: format!("10.0.0.{slot}:8080"),
            incarnation: format!("i{slot}"),
            voter: true,
        };
        let view = QuorumView {
            cluster_id: "c1".to_owned(),
            this: 1,
            leader: Some(2),
            term: 1,
            applied: 0,
            fence: None,
            members: vec![member(1), member(2), member(3)],
        };
        Arc::new(Self {
            log: Mutex::new(Vec::new()),
            fates: Mutex::new(VecDeque::new()),
            poison: Mutex::new(None),
            members_changed: Mutex::default(),
            state: watch::Sender::new(Arc::new(State::default())),
            view: watch::Sender::new(view),
            cut_off: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            silent_ms: AtomicU64::new(0),
            marks: Mutex::default(),
            held: Mutex::default(),
            diverged: Mutex::default(),
            stepped_down: AtomicBool::new(false),
            clock_correction_ms: AtomicI64::new(0),
            trimmed: AtomicU64::new(0),
            base_lost: AtomicBool::new(false),
            ledger_reads: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// Member 1 of three, which leads.
    pub(crate) fn leader() -> Arc<Self> {
        let quorum = Self::follower();
        quorum.lead(Some(FENCE));
        quorum
    }

    pub(crate) fn lead(&self, fence: Option<Fence>) {
        self.view.send_modify(|view| {
            view.fence = fence;
            view.leader = fence.map(|_| view.this);
        });
    }

    pub(crate) fn next(&self, fate: Fate) {
        self.fates.lock().expect("not poisoned").push_back(fate);
    }

    pub(crate) fn log(&self) -> Vec<Entry> {
        self.log.lock().expect("not poisoned").clone()
    }

    /// The changes of all observations in the log.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let observed = |entry: Entry| match entry.payload {
            Payload::Observed(observed) => observed.changes,
            _ => Vec::new(),
        };
        self.log().into_iter().flat_map(observed).collect()
    }

    /// How many observations the log holds.
    pub(crate) fn observed(&self) -> usize {
        let is_observed = |entry: &&Entry| matches!(entry.payload, Payload::Observed(_));
        self.log().iter().filter(is_observed).count()
    }

    pub(crate) fn current(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// Writes an entry as the log's own.
    pub(crate) fn write(&self, proposal: Proposal) -> Answered {
        let mut log = self.log.lock().expect("not poisoned");
        let entry = Entry {
            schema_version: SCHEMA_VERSION,
            leader_time_ms: self.leader_time_ms(),
            actor: proposal.actor,
            request_id: proposal.request_id,
            cause: proposal.cause,
            payload: proposal.payload,
        };
        let index = LogIndex(u64::try_from(log.len()).expect("small") + 1);
        let poison = self.poison.lock().expect("not poisoned").clone();
        let rejected = match (&entry.payload, poison) {
            (Payload::Observed(observed), Some(poison)) => {
                observed.changes.iter().any(|change| format!("{change:?}").contains(&poison))
            }
            _ => false,
        };
        let mut state = State::clone(&self.state.borrow());
        let answered = if rejected {
            let rejection = Rejection::AboveLimit { what: "services", given: 2, limit: 1 };
            Answered { index, applied: Applied::Rejected(rejection), first_answer: false }
        } else {
            state.answer(index, &entry)
        };
        log.push(entry);
        self.state.send_replace(Arc::new(state));
        self.view.send_modify(|view| view.applied = index.0);
        answered
    }

    /// The ledger of the log.
    pub(crate) fn rows(&self) -> Vec<pb::LedgerRow> {
        let mut previous = [0; 32];
        let rows = self.log().into_iter().enumerate().map(|(position, entry)| {
            let mut row = pb::LedgerRow {
                index: u64::try_from(position).expect("small") + 1,
                term: 1,
                entry: encode_entry(&entry).into(),
                kind: pb::LedgerRowKind::Entry.into(),
                hash: Vec::new(),
            };
            previous = row_hash(&previous, "c1", &row);
            row.hash = previous.to_vec();
            row
        });
        rows.collect()
    }

    /// Writes an observation, as an earlier leader did.
    pub(crate) fn know(&self, listing: &Listing) {
        let changes = self.current().difference(listing).upserts;
        let observed = dovetail_routing::fact::Observed {
            swarm: listing.swarm.clone(),
            changes,
            events: Vec::new(),
        };
        self.write(proposal(Payload::Observed(observed)));
    }
}

fn hash_of(row: &pb::LedgerRow) -> LedgerHash {
    row.hash.as_slice().try_into().expect("a hash")
}

pub(crate) fn proposal(payload: Payload) -> Proposal {
    let nobody = Arc::<str>::from("dovetail://member/9");
    Proposal { actor: nobody, request_id: "".into(), cause: "test".into(), payload }
}

impl Quorum for FakeQuorum {
    fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    fn view(&self) -> watch::Receiver<QuorumView> {
        self.view.subscribe()
    }

    async fn propose(&self, fence: Fence, proposal: Proposal) -> Result<Answered, ProposeError> {
        tokio::task::yield_now().await;
        let view = self.view.borrow().clone();
        if view.fence != Some(fence) {
            return Err(ProposeError::NotLeader { leader: view.leader });
        }
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let fate = self.fates.lock().expect("not poisoned").pop_front();
        match fate {
            Some(Fate::Fails(error)) => Err(error),
            Some(Fate::WrittenUnknown) => {
                self.write(proposal);
                Err(ProposeError::Unknown { reason: "cut off".to_owned() })
            }
            None => Ok(self.write(proposal)),
        }
    }

    async fn change_members(
        &self,
        fence: Fence,
        change: &MembersChanged,
        order: Option<LogIndex>,
    ) -> Result<bool, ProposeError> {
        tokio::task::yield_now().await;
        if self.view.borrow().fence != Some(fence) {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let known = |slot: &Slot| self.view.borrow().members.iter().any(|one| one.slot == *slot);
        let (change, changes) = match change.change {
            MemberChange::Add => (change, !known(&change.members[0])),
            MemberChange::Remove if change.members.len() > 1 => {
                return Err(ProposeError::Refused { reason: "no quorum would be left".into() });
            }
            _ => (change, true),
        };
        if let Some(order) = order {
            self.members_changed.lock().expect("not poisoned").push((change.clone(), order));
        }
        Ok(changes)
    }

    async fn read_barrier(&self) -> Result<(), ProposeError> {
        if self.cut_off.load(Ordering::Relaxed) {
            return Err(ProposeError::Unknown { reason: "no quorum".to_owned() });
        }
        Ok(())
    }

    async fn ledger(&self, from: LogIndex, limit: usize) -> Result<Vec<pb::LedgerRow>, String> {
        self.ledger_reads.lock().expect("not poisoned").push(from.0);
        let first = from.0.max(self.trimmed.load(Ordering::Relaxed) + 1);
        let rows = self.rows().into_iter().filter(|row| row.index >= first);
        Ok(rows.take(limit).collect())
    }

    async fn ledger_from(&self, from: LogIndex) -> Result<LedgerStart, String> {
        let rows = self.rows();
        let oldest = self.trimmed.load(Ordering::Relaxed) + 1;
        let first = from.0.max(1);
        let first = if from.0 == 0 { oldest } else { first };
        if first < oldest {
            return Err(format!("from: this member's ledger begins at {oldest}"));
        }
        let before = rows.iter().find(|row| row.index + 1 == first);
        let kept = first == oldest && !self.base_lost.load(Ordering::Relaxed);
        Ok(LedgerStart {
            first: LogIndex(first),
            previous: before.map_or([0; 32], hash_of),
            // The fake's log begins at 1, with nothing before it.
            base: kept.then(|| {
                let mut state = State::default();
                for (entry, index) in self.log().iter().zip(1..oldest) {
                    state.apply(LogIndex(index), entry);
                }
                (state.encode().into(), state.digest())
            }),
            ancestors: Vec::new(),
        })
    }

    async fn ledger_check(
        &self,
        index: Option<u64>,
        recompute: bool,
    ) -> Result<pb::MemberLedger, String> {
        let rows = self.rows();
        let at = rows.iter().find(|row| Some(row.index) == index);
        Ok(pb::MemberLedger {
            first: 1,
            last: rows.len() as u64,
            hash: at.map(|row| Digest(hash_of(row)).to_string()).unwrap_or_default(),
            recomputed: if recompute { rows.len() as u64 } else { 0 },
            ..pb::MemberLedger::default()
        })
    }

    fn marks(&self) -> Marks {
        *self.marks.lock().expect("not poisoned")
    }

    async fn held(&self, _index: u64) -> Result<pb::HeldResponse, String> {
        self.held.lock().expect("not poisoned").clone().ok_or_else(|| "not kept".to_owned())
    }

    fn diverged(&self) -> Option<String> {
        self.diverged.lock().expect("not poisoned").clone()
    }

    async fn step_down(&self) {
        self.stepped_down.store(true, Ordering::Relaxed);
        self.lead(None);
    }

    fn sign(&self, message: &[u8]) -> Result<pb::ExportSignature, String> {
        let signature = blake3::hash(message).as_bytes().to_vec();
        Ok(pb::ExportSignature { scheme: 1, chain: vec![b"member 1".to_vec()], signature })
    }

    async fn backup(&self) -> Result<(LogIndex, Bytes), String> {
        let state = self.current();
        Ok((state.applied_index(), state.encode().into()))
    }

    fn leader_time_ms(&self) -> u64 {
        1_000 + u64::try_from(self.began.elapsed().as_millis()).expect("a short test")
    }

    fn correct_clock(&self, ahead_ms: i64) {
        self.clock_correction_ms.store(ahead_ms, Ordering::Relaxed);
    }

    fn leader_silent_ms(&self) -> u64 {
        self.silent_ms.load(Ordering::Relaxed)
    }
}

/// A Docker that shows what it is told.
#[derive(Debug)]
pub(crate) struct FakeDocker {
    seen: watch::Sender<Option<Arc<Observation>>>,
    /// Answers by id; without one, Docker does not answer.
    pub(crate) exists: Mutex<BTreeMap<String, bool>>,
    pub(crate) all_gone: AtomicBool,
    pub(crate) looks: AtomicU64,
    pub(crate) active: AtomicBool,
    pub(crate) error: Mutex<Option<String>>,
    sequence: AtomicU64,
}

impl FakeDocker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            seen: watch::Sender::new(None),
            exists: Mutex::default(),
            all_gone: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            active: AtomicBool::new(false),
            error: Mutex::default(),
            sequence: AtomicU64::new(0),
        })
    }

    /// A look by the clock that listed everything.
    pub(crate) fn show(&self, listing: Listing) {
        self.show_as(listing, true, Instant::now());
    }

    pub(crate) fn show_as(&self, listing: Listing, full: bool, began: Instant) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let listing = Arc::new(listing);
        let observation = Observation { listing, full, sequence, began, events: Vec::new() };
        self.seen.send_replace(Some(Arc::new(observation)));
    }

    pub(crate) fn answer(&self, id: &str, exists: bool) {
        self.exists.lock().expect("not poisoned").insert(id.to_owned(), exists);
    }
}

impl Observe for FakeDocker {
    fn observations(&self) -> watch::Receiver<Option<Arc<Observation>>> {
        self.seen.subscribe()
    }

    async fn exists(&self, removed: &Change) -> Result<bool, String> {
        tokio::task::yield_now().await;
        let id = match removed {
            Change::ServiceGone(id) => id.to_string(),
            Change::TaskGone(id) => id.to_string(),
            Change::NetworkGone(id) => id.to_string(),
            other => return Err(format!("asked for {other:?}")),
        };
        if self.all_gone.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let answers = self.exists.lock().expect("not poisoned");
        answers.get(&id).copied().ok_or_else(|| "no answer".to_owned())
    }

    fn look(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
    }

    fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }

    fn age(&self) -> Option<Duration> {
        self.seen.borrow().as_ref().map(|seen| seen.began.elapsed())
    }

    fn error(&self) -> Option<String> {
        self.error.lock().expect("not poisoned").clone()
    }
}

/// A swarm of services, each with so many running tasks, published as `NAME.example`.
pub(crate) fn listing(services: &[(&str, u8)]) -> Listing {
    let network = NetworkId::from("n1");
    let mut listing = Listing { swarm: SwarmId::from("swarm-1"), ..Listing::default() };
    let overlay = Network { id: network.clone(), name: "apps".into(), ingress: false };
    listing.networks.insert(network.clone(), overlay);
    for (position, (name, tasks)) in services.iter().enumerate() {
        let text = |value: String| LabelValue::Text(value.into());
        let id = ServiceId::from(*name);
        let service = Service {
            id: id.clone(),
            version: SwarmVersion(10),
            name: (*name).into(),
            created_at: "2026-11-01T00:00:00Z".into(),
            labels: BTreeMap::from([
                ("com.docker.lb.hosts".into(), text(format!("{name}.example"))),
                ("com.docker.lb.port".into(), text("8080".to_owned())),
                ("com.docker.lb.network".into(), text("apps".to_owned())),
            ]),
            networks: vec![network.clone()],
            vips: Vec::new(),
            endpoint_mode: EndpointMode::Vip,
            host_ports: Vec::new(),
            scale: Scale::Replicated((*tasks).into()),
            update_state: "".into(),
        };
        listing.services.insert(id.clone(), service);
        for slot in 1..=*tasks {
            let [_, _, second, third] = u32::try_from(position).expect("few").to_be_bytes();
            let task = Task {
                id: TaskId::from(format!("{name}.{slot}").as_str()),
                version: SwarmVersion(10),
                service: id.clone(),
                slot: slot.into(),
                node: SwarmNodeId::from("m1"),
                desired: DesiredState::Running,
                state: TaskState::Running,
                addresses: vec![(network.clone(), [10, second, third, slot].into())],
                host_ports: Vec::new(),
            };
            listing.tasks.insert(task.id.clone(), task);
        }
    }
    listing
}

/// Members that are reached in memory.
#[derive(Debug, Default)]
pub(crate) struct FakePeers {
    pub(crate) locals: Mutex<BTreeMap<Slot, pb::LocalResponse>>,
    pub(crate) admins: Mutex<BTreeMap<Slot, Channel>>,
    pub(crate) ledgers: Mutex<BTreeMap<Slot, pb::MemberLedger>>,
    pub(crate) held: Mutex<BTreeMap<Slot, pb::HeldResponse>>,
    /// Members that never answer.
    pub(crate) silent: Mutex<Vec<Slot>>,
}

impl Peers for FakePeers {
    async fn local(&self, slot: Slot, _asked: Asked) -> Result<pb::LocalResponse, String> {
        if self.silent.lock().expect("not poisoned").contains(&slot) {
            std::future::pending::<()>().await;
        }
        let locals = self.locals.lock().expect("not poisoned");
        locals.get(&slot).cloned().ok_or_else(|| "connection refused".to_owned())
    }

    async fn ledger_check(
        &self,
        slot: Slot,
        _index: Option<u64>,
        _recompute: bool,
    ) -> Result<pb::MemberLedger, String> {
        let ledgers = self.ledgers.lock().expect("not poisoned");
        ledgers.get(&slot).cloned().ok_or_else(|| "connection refused".to_owned())
    }

    async fn held(&self, slot: Slot, _index: u64) -> Result<pb::HeldResponse, String> {
        let held = self.held.lock().expect("not poisoned");
        held.get(&slot).cloned().ok_or_else(|| "not applied yet".to_owned())
    }

    fn admin(&self, slot: Slot) -> Result<AdminClient, String> {
        let admins = self.admins.lock().expect("not poisoned");
        let channel = admins.get(&slot).cloned().ok_or_else(|| "no address".to_owned())?;
        Ok(AdminClient::new(channel))
    }
}

/// A server in memory.
#[derive(Clone, Debug)]
pub(crate) struct Dial(mpsc::UnboundedSender<Result<PeerIo, io::Error>>);

/// Serves `routes` for as long as somebody can dial.
pub(crate) fn serve(routes: Routes) -> Dial {
    let (sender, receiver) = mpsc::unbounded_channel();
    let incoming = UnboundedReceiverStream::new(receiver);
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
    Dial(sender)
}

impl Dial {
    /// A channel whose client certificate carries `identity`.
    pub(crate) fn channel(&self, identity: &str) -> Channel {
        let addr = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let peer = PeerInfo { addr, identity: identity.parse().expect("identity") };
        let dial = self.0.clone();
        let connector = tower::service_fn(move |_| {
            let (client, stream) = tokio::io::duplex(64 * 1_024);
            let sent = dial.send(Ok(PeerIo { stream, peer: peer.clone() }));
            async move {
                sent.map_err(|_| io::Error::other("the server has ended"))?;
                Ok::<_, io::Error>(TokioIo::new(client))
            }
        });
        Endpoint::from_static("http://memory").connect_with_connector_lazy(connector)
    }
}

#[derive(Debug)]
pub(crate) struct PeerIo {
    stream: DuplexStream,
    peer: PeerInfo,
}

impl Connected for PeerIo {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for PeerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
