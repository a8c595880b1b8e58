//! How empty disks become a quorum: once, whatever the order of starts.
//!
//! 1. Every member with an empty disk asks every address in `--members`.
//! 2. One answer "I have data" stops formation: a quorum exists already. A disk
//!    that was marked as a founder of that quorum joins it; any other disk is
//!    new and waits to be taken in as another incarnation.
//! 3. When **every** address has answered that its disk is empty, the lowest
//!    slot makes the cluster id, has every member mark its disk as a founder's
//!    (durably, before it answers), and initialises Raft.
//!
//! An initialisation that died halfway leaves founders without data: when every
//! address answers again and none has data, it is void and starts over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dovetail_control::ports::Slot;
use dovetail_process::ready::Check;
use dovetail_proto::v1 as pb;
use dovetail_raft_store::MemberNode;
use tracing::{info, warn};

use super::hub::Hub;
use super::peers::{raft_client, raft_client_at};

/// Pause between two rounds of asking.
const ROUND: Duration = Duration::from_millis(100);
/// How long a member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);

/// What became of formation.
#[derive(Debug)]
pub(crate) enum Formed {
    /// This member initialises Raft with these nodes.
    Initialise(BTreeMap<u64, MemberNode>),
    /// Raft runs and waits for a leader.
    Join,
}

/// Why a member must not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormationError {
    #[error(
        "data folder {dir} belongs to quorum {ours}, but member {slot} at {address} is of quorum {theirs}"
    )]
    OtherQuorum { dir: String, ours: String, slot: Slot, address: String, theirs: String },
    #[error("{0}")]
    Removed(String),
    #[error("make a cluster id")]
    Random(#[source] std::io::Error),
    #[error("mark the disk as a founder's")]
    Owner(#[source] dovetail_raft_store::OwnerError),
}

/// Asks the others until a quorum can be formed, or is found.
pub(crate) async fn form(
    hub: &Arc<Hub>,
    dir: &std::path::Path,
    check: &Check,
) -> Result<Formed, FormationError> {
    if hub.has_data() {
        refuse_other_quorum(hub, dir).await?;
        return Ok(Formed::Join);
    }
    let mut said = String::new();
    loop {
        // A leader's log or another member's order may have decided meanwhile.
        if hub.has_data() || hub.owner().node_id > 0 {
            return Ok(Formed::Join);
        }
        let answers = ask_all(hub).await;
        let waiting_for = match step(hub, &answers).await? {
            Step::Done(formed) => return Ok(formed),
            Step::Wait(reason) => reason,
        };
        if waiting_for != said {
            info!(reason = %waiting_for, "formation waits");
            check.set_not_ready(waiting_for.clone());
            said = waiting_for;
        }
        tokio::time::sleep(ROUND).await;
    }
}

enum Step {
    Done(Formed),
    Wait(String),
}

pub(crate) type Answers = BTreeMap<Slot, Result<pb::MemberHello, String>>;

async fn step(hub: &Arc<Hub>, answers: &Answers) -> Result<Step, FormationError> {
    let owner = hub.owner();
    let with_data = answers
        .iter()
        .filter_map(|(slot, answer)| Some((slot, answer.as_ref().ok()?)))
        .find(|(_, hello)| hello.has_data);
    if let Some((slot, hello)) = with_data {
        let theirs = hello.sender.as_ref().map_or("", |sender| sender.cluster_id.as_str());
        if owner.founder && owner.cluster_id == theirs {
            return Ok(Step::Done(Formed::Join));
        }
        // In a quorum that never had this slot, there is nothing to replace.
        let advice = if hello.knows_slot {
            format!("dovetail member replace {}", hub.slot)
        } else {
            format!("dovetail member add {}={}", hub.slot, hub.advertised)
        };
        return Ok(Step::Wait(format!(
            "member {slot} holds data of quorum {theirs:?}, and this disk is new (incarnation {}): {advice}",
            owner.incarnation
        )));
    }
    let missing: Vec<String> = answers
        .iter()
        .filter_map(|(slot, answer)| Some(format!("member {slot} ({})", answer.as_ref().err()?)))
        .collect();
    if !missing.is_empty() {
        return Ok(Step::Wait(format!("waiting for {}", missing.join(", "))));
    }
    if hub.members.0.keys().next() != Some(&hub.slot) {
        // The order comes from the lowest slot; once it came, Raft may start.
        let reason = format!("waiting for member {} to form the quorum", lowest(hub));
        return Ok(if owner.founder { Step::Done(Formed::Join) } else { Step::Wait(reason) });
    }
    found(hub).await
}

fn lowest(hub: &Hub) -> Slot {
    hub.members.0.keys().next().copied().unwrap_or(hub.slot)
}

/// The lowest slot's part: a new cluster id on every disk, then the membership.
async fn found(hub: &Arc<Hub>) -> Result<Step, FormationError> {
    let cluster_id = dovetail_raft_store::random_id().map_err(FormationError::Random)?;
    let mut nodes = BTreeMap::new();
    for &slot in hub.members.0.keys() {
        let node = if slot == hub.slot {
            let owner = hub.owner.found(&cluster_id).map_err(FormationError::Owner)?;
            MemberNode { slot, incarnation: owner.incarnation, address: hub.advertised.clone() }
        } else {
            match order(hub, slot, &cluster_id).await {
                Ok(node) => node,
                Err(reason) => {
                    let reason = format!("member {slot} did not mark its disk ({reason})");
                    return Ok(Step::Wait(reason));
                }
            }
        };
        nodes.insert(slot, node);
    }
    info!(%cluster_id, members = %hub.members, "quorum formed");
    Ok(Step::Done(Formed::Initialise(nodes)))
}

/// Has another member mark its disk; returns what the membership says of it.
async fn order(hub: &Hub, slot: Slot, cluster_id: &str) -> Result<MemberNode, String> {
    let request =
        pb::FoundRequest { sender: Some(hub.sender()), cluster_id: cluster_id.to_owned() };
    let mut client = raft_client(hub, slot)?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.found(request))
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|status| status.message().to_owned())?;
    let pb::FoundResponse { sender, address } = answer.into_inner();
    let incarnation = sender.ok_or("an answer without a sender")?.incarnation;
    Ok(MemberNode { slot, incarnation, address })
}

/// Asks all members but this one who they are.
pub(crate) async fn ask_all(hub: &Arc<Hub>) -> Answers {
    let asks = hub.slots().into_iter().filter(|slot| *slot != hub.slot).map(|slot| {
        let hub = Arc::clone(hub);
        async move {
            let address = hub.address(slot).unwrap_or_default();
            (slot, ask(&hub, slot, &address).await)
        }
    });
    futures_util::future::join_all(asks).await.into_iter().collect()
}

/// Asks whoever answers at `address` who it is: it has to be the member of `slot`.
pub(crate) async fn ask(hub: &Hub, slot: Slot, address: &str) -> Result<pb::MemberHello, String> {
    let hello = pb::MemberHello {
        sender: Some(hub.sender()),
        has_data: hub.has_data(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..pb::MemberHello::default()
    };
    let mut client = raft_client_at(hub, slot, address)?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.hello(hello))
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    match &answer.sender {
        Some(sender) if sender.slot == slot => Ok(answer),
        Some(sender) => Err(format!("its address answers as member {}", sender.slot)),
        None => Err("an answer without a sender".to_owned()),
    }
}

/// A member with data starts unless another of its list is of another quorum.
async fn refuse_other_quorum(hub: &Arc<Hub>, dir: &std::path::Path) -> Result<(), FormationError> {
    let ours = hub.owner().cluster_id;
    for (slot, answer) in ask_all(hub).await {
        let hello = match answer {
            Ok(hello) => hello,
            Err(reason) => {
                warn!(member = slot, %reason, "member not asked");
                continue;
            }
        };
        if hello.removed_you {
            let reason = super::removal::told(hub).await;
            return Err(FormationError::Removed(reason.unwrap_or_default()));
        }
        let theirs = hello.sender.map(|sender| sender.cluster_id).unwrap_or_default();
        if hello.has_data && theirs != ours {
            return Err(FormationError::OtherQuorum {
                dir: dir.display().to_string(),
                ours,
                slot,
                address: hub.address(slot).unwrap_or_default(),
                theirs,
            });
        }
    }
    Ok(())
}
