//! What the core's logic needs of the outside, owned by whoever uses it.
//!
//! `node` implements these over openraft and tonic; tests implement them with a
//! vector for a log. So nothing in this crate knows Raft, a disk or Docker.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use dovetail_ledger::LedgerHash;
use dovetail_proto::v1 as pb;
use dovetail_routing::command::MembersChanged;
use dovetail_routing::entry::Answered;
use dovetail_routing::state::State;
use dovetail_routing::{Digest, LogIndex, Payload};
use tokio::sync::watch;

/// The number of a member's place in `--members`: its `--id`.
pub type Slot = u64;

/// Proof of one leadership. A proposal made under it is refused once it has ended.
///
/// It is the whole leader identity, never the bare term: in openraft's default
/// mode two leaders may share a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    pub term: u64,
    /// Raft's own node id of the leader.
    pub node: u64,
}

/// One member as the quorum's membership has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub slot: Slot,
    /// Where other members and clients reach it, `HOST:PORT`.
    pub address: String,
    pub incarnation: String,
    pub voter: bool,
}

/// The quorum as this member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuorumView {
    /// Empty until the quorum is formed.
    pub cluster_id: String,
    /// This member.
    pub this: Slot,
    pub leader: Option<Slot>,
    pub term: u64,
    /// The last applied index here.
    pub applied: u64,
    /// Present while this member leads and can write.
    pub fence: Option<Fence>,
    pub members: Vec<Member>,
}

/// Why nothing is known to have been written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This member does not lead, or the fence has ended: nothing was proposed.
    #[error("not the leader{}", .leader.map(|slot| format!(", member {slot} is")).unwrap_or_default())]
    NotLeader { leader: Option<Slot> },
    /// It may be written now, later or never.
    #[error("outcome unknown: {reason}")]
    Unknown { reason: String },
    /// Refused before it could have any effect.
    #[error("{reason}")]
    Refused { reason: String },
}

/// The replicated log, and the state that this member derived from it.
pub trait Quorum: Send + Sync + 'static {
    /// The applied state; changes with every entry.
    fn state(&self) -> watch::Receiver<Arc<State>>;

    /// Leadership, membership and progress.
    fn view(&self) -> watch::Receiver<QuorumView>;

    /// Writes an entry under `fence` and waits until it is applied here. A repeated
    /// command gets its first answer.
    fn propose(
        &self,
        fence: Fence,
        proposal: Proposal,
    ) -> impl Future<Output = Result<Answered, ProposeError>> + Send;

    /// Changes who the members are, under `fence`, and says whether anything was to change.
    ///
    /// With `order`, the entry that ordered it, it is done; without, it is only checked.
    /// Refused when the quorum would be lost. Done again, it changes nothing.
    fn change_members(
        &self,
        fence: Fence,
        change: &MembersChanged,
        order: Option<LogIndex>,
    ) -> impl Future<Output = Result<bool, ProposeError>> + Send;

    /// Returns once this member's state holds every entry acknowledged before the call.
    fn read_barrier(&self) -> impl Future<Output = Result<(), ProposeError>> + Send;

    /// Rows of the ledger from `from` on, at most `limit`.
    fn ledger(
        &self,
        from: LogIndex,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<pb::LedgerRow>, String>> + Send;

    /// The state after at least every entry that is applied now, as the file of a raft
    /// snapshot, and the last index that it holds.
    fn backup(&self) -> impl Future<Output = Result<(LogIndex, Bytes), String>> + Send;

    /// The time in milliseconds that an entry proposed now would carry.
    fn leader_time_ms(&self) -> u64;

    /// The median of the members' clocks is so many milliseconds ahead of this member's: what
    /// it proposes from here on carries that time. 0 trusts its own clock.
    fn correct_clock(&self, ahead_ms: i64);

    /// Where a part of this member's ledger begins that goes on without a gap: at `from`;
    /// when it is 0, at the oldest such row that can be applied to a state that is kept, or
    /// at the oldest at all while none is. The error says from where it can be had.
    fn ledger_from(
        &self,
        from: LogIndex,
    ) -> impl Future<Output = Result<LedgerStart, String>> + Send;

    /// What this member's ledger holds, its hash at `index`, and, if it is to recompute
    /// every hash, whether it holds together.
    fn ledger_check(
        &self,
        index: Option<u64>,
        recompute: bool,
    ) -> impl Future<Output = Result<pb::MemberLedger, String>> + Send;

    /// Where members can be compared, as this one knows it.
    fn marks(&self) -> Marks;

    /// What this member held at a marked index, or the newest. The error says why not.
    fn held(&self, index: u64) -> impl Future<Output = Result<pb::HeldResponse, String>> + Send;

    /// Why this member must serve nobody, once it held something else than a majority.
    fn diverged(&self) -> Option<String>;

    /// Hands leadership on, if this member has it, and takes none any more.
    fn step_down(&self) -> impl Future<Output = ()> + Send;

    /// Signs with the key of this member's certificate.
    fn sign(&self, message: &[u8]) -> Result<pb::ExportSignature, String>;

    /// When this member last heard from the leader, in milliseconds; 0 while it leads.
    fn leader_silent_ms(&self) -> u64;
}

/// Indexes at which members can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The last applied one.
    pub newest: u64,
    /// The newest at which every member keeps what it held.
    pub newest_mark: Option<u64>,
    /// What the last checkpoint was about.
    pub compared: u64,
    /// The last checkpoint's own index.
    pub checkpoint: u64,
}

/// Where rows of the ledger begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerStart {
    /// The first row.
    pub first: LogIndex,
    /// The hash that it follows on; zeros where the log begins.
    pub previous: LedgerHash,
    /// The bytes of the state before it, with their digest; `None` where the log begins,
    /// and where no state is kept.
    pub base: Option<(Bytes, Digest)>,
    /// Cluster ids that this one was restored from, newest first.
    pub ancestors: Vec<String>,
}

/// An entry to be, but for its time, which the proposer stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub actor: Arc<str>,
    pub request_id: Arc<str>,
    pub cause: Arc<str>,
    pub payload: Payload,
}

/// What is wanted of a member's own knowledge, beyond its progress and subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What its problems and its subscribers' are; else they are only counted.
    pub problems: bool,
    /// What its subscribers counted on routes with a canary.
    pub traffic: bool,
    /// What its clock shows, and nothing else.
    pub clock_only: bool,
}

impl Asked {
    /// What the problems are.
    pub const PROBLEMS: Self = Self { problems: true, traffic: false, clock_only: false };
}

/// The other members, asked directly.
pub trait Peers: Send + Sync + 'static {
    /// What another member alone knows: its progress and its subscribers.
    fn local(
        &self,
        slot: Slot,
        asked: Asked,
    ) -> impl Future<Output = Result<pb::LocalResponse, String>> + Send;

    /// As [`Quorum::ledger_check`], of another member.
    fn ledger_check(
        &self,
        slot: Slot,
        index: Option<u64>,
        recompute: bool,
    ) -> impl Future<Output = Result<pb::MemberLedger, String>> + Send;

    /// As [`Quorum::held`], of another member.
    fn held(
        &self,
        slot: Slot,
        index: u64,
    ) -> impl Future<Output = Result<pb::HeldResponse, String>> + Send;

    /// A client of the admin API of another member, authenticated as this member,
    /// so that a follower answers with the leader's view.
    fn admin(&self, slot: Slot) -> Result<AdminClient, String>;
}

/// The generated client over whatever channel `process` makes.
pub type AdminClient = pb::admin_client::AdminClient<tonic::transport::Channel>;
