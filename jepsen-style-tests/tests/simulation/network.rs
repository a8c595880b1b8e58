//! Links between members: delay, loss, duplicates, cuts, clogs; and openraft's network over them.
//!
//! Messages pass the product's own codec. An append stream is kept in order and stalls on a
//! cut, as TCP does, until its connection is given up; single requests are lost.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_raft_store::codec;
use dovetail_raft_store::{
    LogId, MemberNode, Raft, RaftSnapshot, RaftSnapshotData, TypeConfig, Vote,
};
use futures_util::{Stream, StreamExt as _};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::plan::{Kind, Sabotage};
use super::world::Shared;

/// A connection on which nothing passes is given up after so long.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Between two looks at a link that is cut or clogged.
const LOOK: Duration = Duration::from_millis(10);

/// A process: the member, and how often it was started.
pub(crate) type Boot = (u64, u64);

#[derive(Debug, Default)]
struct State {
    cut: BTreeSet<(u64, u64)>,
    clogged: BTreeSet<(u64, u64)>,
    slow: BTreeSet<(u64, u64)>,
    loss: f64,
    duplicates: f64,
    running: BTreeMap<u64, (u64, Running)>,
}

/// What a process takes messages with.
#[derive(Clone)]
struct Running(Raft);

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Net(Mutex<State>);

impl Net {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn up(&self, (member, boot): Boot, raft: Raft) {
        self.lock().running.insert(member, (boot, Running(raft)));
    }

    pub(crate) fn down(&self, (member, boot): Boot) {
        let mut state = self.lock();
        if state.running.get(&member).is_some_and(|(running, _)| *running == boot) {
            state.running.remove(&member);
        }
    }

    pub(crate) fn is_running(&self, (member, boot): Boot) -> bool {
        self.lock().running.get(&member).is_some_and(|(running, _)| *running == boot)
    }

    pub(crate) fn cut(&self, links: impl IntoIterator<Item = (u64, u64)>) {
        self.lock().cut.extend(links);
    }

    pub(crate) fn is_cut(&self, link: (u64, u64)) -> bool {
        self.lock().cut.contains(&link)
    }

    pub(crate) fn clog(&self, links: impl IntoIterator<Item = (u64, u64)>) {
        self.lock().clogged.extend(links);
    }

    pub(crate) fn unclog(&self, link: (u64, u64)) {
        self.lock().clogged.remove(&link);
    }

    pub(crate) fn slow(&self, links: impl IntoIterator<Item = (u64, u64)>) {
        self.lock().slow.extend(links);
    }

    pub(crate) fn set_loss(&self, loss: f64) {
        self.lock().loss = loss;
    }

    pub(crate) fn set_duplicates(&self, duplicates: f64) {
        self.lock().duplicates = duplicates;
    }

    /// Everything passes again.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        state.cut.clear();
        state.clogged.clear();
        state.slow.clear();
        (state.loss, state.duplicates) = (0.0, 0.0);
    }
}

/// What becomes of a message.
enum Fate {
    Passes(Duration),
    Waits,
    Lost,
}

fn fate(world: &Shared, link: (u64, u64)) -> Fate {
    let state = world.net.lock();
    if state.cut.contains(&link) {
        world.count(if state.cut.contains(&(link.1, link.0)) {
            Kind::Partition
        } else {
            Kind::OneWay
        });
        return Fate::Lost;
    }
    if state.clogged.contains(&link) {
        world.count(Kind::Clog);
        return Fate::Waits;
    }
    let mut random = world.random();
    if random.f64() < state.loss {
        world.count(Kind::Loss);
        return Fate::Lost;
    }
    let micros = random.u64(100..1_500);
    if state.slow.contains(&link) {
        world.count(Kind::SlowLinks);
        return Fate::Passes(Duration::from_micros(micros * 60));
    }
    Fate::Passes(Duration::from_micros(micros))
}

/// Waits until a message has passed; `false` when it is lost.
async fn passes(world: &Shared, link: (u64, u64)) -> bool {
    loop {
        match fate(world, link) {
            Fate::Passes(delay) => {
                sleep(delay).await;
                return true;
            }
            Fate::Waits => sleep(LOOK).await,
            Fate::Lost => return false,
        }
    }
}

/// A place in the log, for the checkers.
fn position(id: LogId) -> (u64, u64, u64) {
    (id.leader_id.term, id.leader_id.node_id, id.index)
}

/// One member's side of the network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    world: Shared,
    from: Boot,
}

impl Network {
    pub(crate) fn new(world: Shared, from: Boot) -> Self {
        Self { world, from }
    }
}

/// The way to one member.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    world: Shared,
    from: Boot,
    to: u64,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &MemberNode) -> Link {
        Link { world: self.world.clone(), from: self.from, to: target }
    }
}

fn unreachable(reason: &str) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(reason)))
}

impl Link {
    fn there(&self) -> (u64, u64) {
        (self.from.0, self.to)
    }

    fn back(&self) -> (u64, u64) {
        (self.to, self.from.0)
    }

    fn target(&self) -> Result<(Boot, Raft), RPCError<TypeConfig>> {
        let state = self.world.net.lock();
        match state.running.get(&self.to) {
            Some((boot, running)) => Ok(((self.to, *boot), running.0.clone())),
            None => Err(unreachable("connection refused")),
        }
    }

    /// One request and its answer; `call` may run twice, when the message is doubled.
    async fn call<T, F, A>(
        &self,
        what: &'static str,
        option: RPCOption,
        call: F,
    ) -> Result<T, RPCError<TypeConfig>>
    where
        T: Send + 'static,
        F: Fn(Raft) -> A + Send + Sync + 'static,
        A: Future<Output = Result<T, String>> + Send + 'static,
    {
        let lost = std::future::pending::<()>;
        let exchange = async {
            let there = passes(&self.world, self.there()).await;
            if !there || !self.world.net.is_running(self.from) {
                lost().await;
            }
            let (boot, raft) = self.target()?;
            self.world.trace.hash(format_args!("{what} {:?} -> {boot:?}", self.from));
            let again = self.world.random().f64() < self.world.net.lock().duplicates;
            let answer = call(raft.clone()).await;
            if again {
                self.world.count(Kind::Duplicate);
                let (world, delay) = (self.world.clone(), self.world.random().u64(0..300));
                let twice = call(raft);
                tokio::spawn(async move {
                    sleep(Duration::from_millis(delay)).await;
                    if world.net.is_running(boot) {
                        let _ = twice.await;
                    }
                });
            }
            let answer = answer.map_err(|reason| unreachable(&reason))?;
            // Of a process that has ended meanwhile, nothing comes back.
            if !self.world.net.is_running(boot) || !passes(&self.world, self.back()).await {
                lost().await;
            }
            Ok(answer)
        };
        match timeout(option.hard_ttl(), exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable("no answer in time")),
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = RaftSnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = codec::encode_append(&request);
        let call = move |raft: Raft| {
            let request = request.clone();
            async move {
                let request = codec::decode_append(request).map_err(text)?;
                let answer = raft.append_entries(request).await.map_err(text)?;
                codec::decode_append_response(codec::encode_append_response(&answer)).map_err(text)
            }
        };
        self.call("append", option, call).await
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
            if !passes(&self.world, self.there()).await {
                sleep(KEEP_ALIVE).await;
                return Err(unreachable("the connection was not made"));
            }
            let (boot, raft) = self.target()?;
            let (sender, received) = tokio::sync::mpsc::channel(64);
            let link = self.clone();
            tokio::spawn(carry(link.clone(), boot, requests, sender));
            let results = raft.stream_append(tokio_stream::wrappers::ReceiverStream::new(received));
            let answers = results.then(move |answer| {
                let link = link.clone();
                async move {
                    let answer = answer.map_err(|error| unreachable(&error.to_string()))?;
                    let ends = (link.from, boot);
                    if !in_order(&link.world, link.back(), ends, Instant::now()).await {
                        return Err(unreachable("the connection has ended"));
                    }
                    codec::decode_stream_append(codec::encode_stream_append(&answer))
                        .map_err(|error| unreachable(&error.to_string()))
                }
            });
            let answers: BoxStream<'s, _> = Box::pin(answers);
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        // Who asks has voted for itself before.
        self.world.voted(self.from.0, &request.vote);
        if request.leadership_transfer {
            let term = request.vote.leader_id.term - 1;
            let has = request.last_log_id.map(position);
            self.world.expect(self.world.checks().transfers.asks(self.from.0, term, has));
        }
        let request = codec::encode_vote_request(&request);
        let (world, to) = (self.world.clone(), self.to);
        let call = move |raft: Raft| {
            let (request, world) = (request.clone(), world.clone());
            async move {
                let request = codec::decode_vote_request(request).map_err(text)?;
                let answer = raft.vote(request.clone()).await.map_err(text)?;
                if answer.vote_granted {
                    world.voted(to, &request.vote);
                }
                codec::decode_vote_response(codec::encode_vote_response(&answer)).map_err(text)
            }
        };
        self.call("vote", option, call).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = codec::encode_vote_request(&request);
        let call = move |raft: Raft| {
            let request = request.clone();
            async move {
                let request = codec::decode_vote_request(request).map_err(text)?;
                let answer = raft.pre_vote(request).await.map_err(text)?;
                codec::decode_vote_response(codec::encode_vote_response(&answer)).map_err(text)
            }
        };
        self.call("pre-vote", option, call).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let send = async {
            if !passes(&self.world, self.there()).await {
                std::future::pending::<()>().await;
            }
            let (boot, raft) = self.target()?;
            self.world.trace.note(format_args!("raft snapshot {:?} -> {boot:?}", self.from));
            let answer = raft.install_full_snapshot(vote, snapshot).await;
            let answer = answer.map_err(|error| unreachable(&error.to_string()))?;
            let is_there = self.world.net.is_running(boot);
            if !is_there || !passes(&self.world, self.back()).await {
                std::future::pending::<()>().await;
            }
            Ok::<_, RPCError<TypeConfig>>(answer)
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            () = sleep(option.hard_ttl().min(KEEP_ALIVE * 2)) => {
                let error = AnyError::error("no answer in time");
                Err(StreamingError::Network(NetworkError::new(&error)))
            }
            answer = send => answer.map_err(Into::into),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let (term, to) = (request.from_leader().leader_id.term, *request.to_node_id());
        let whole = request.last_log_id().copied().map(position);
        self.world.checks().transfers.handed(to, term, whole);
        let lags = self.world.plan.is_sabotaged(Sabotage::LaggingHeir);
        let request = match lags {
            true => TransferLeaderRequest::new(*request.from_leader(), to, None),
            false => request,
        };
        let request = codec::encode_transfer_request(&request);
        let call = move |raft: Raft| {
            let request = request.clone();
            async move {
                let request = codec::decode_transfer_request(request).map_err(text)?;
                raft.handle_transfer_leader(request).await.map_err(text)
            }
        };
        self.call("transfer", option, call).await
    }
}

/// Brings the requests of a stream to the other end, in their order.
async fn carry<S>(
    link: Link,
    boot: Boot,
    mut requests: S,
    sender: tokio::sync::mpsc::Sender<AppendEntriesRequest<TypeConfig>>,
) where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    while let Some(request) = requests.next().await {
        let bytes = codec::encode_append(&request);
        if !in_order(&link.world, link.there(), (link.from, boot), Instant::now()).await {
            return;
        }
        let Ok(request) = codec::decode_append(bytes) else { return };
        link.world.trace.hash(format_args!("stream {:?} -> {boot:?}", link.from));
        if sender.send(request).await.is_err() {
            return;
        }
    }
}

/// Waits until a message of a stream has passed; `false` when the connection ends before.
async fn in_order(world: &Shared, link: (u64, u64), ends: (Boot, Boot), since: Instant) -> bool {
    loop {
        let alive = world.net.is_running(ends.0) && world.net.is_running(ends.1);
        if !alive || since.elapsed() > KEEP_ALIVE {
            return false;
        }
        match fate(world, link) {
            Fate::Passes(delay) => {
                sleep_until(Instant::now() + delay).await;
                return world.net.is_running(ends.0) && world.net.is_running(ends.1);
            }
            Fate::Waits => sleep(LOOK).await,
            // Sent again after a while, unless the link is cut for longer.
            Fate::Lost => sleep(Duration::from_millis(200)).await,
        }
    }
}
