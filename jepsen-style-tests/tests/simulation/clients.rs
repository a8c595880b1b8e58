//! Clients: each sends commands with request ids of its own, and asks again until it knows.

use std::sync::Arc;
use std::time::Duration;

use dovetail_control::ports::{Proposal, ProposeError, Quorum as _};
use dovetail_routing::{Command, Payload};
use tokio::time::sleep;

use super::orders;
use super::plan::Sabotage;
use super::quorum::SimQuorum;
use super::world::Shared;

/// Some member, rather the one that a member named.
fn some_member(world: &Shared, hint: Option<u64>) -> Option<SimQuorum> {
    let members = world.members();
    let named = members.iter().find(|member| Some(member.id) == hint);
    let choice = world.random().usize(0..members.len());
    named.unwrap_or(&members[choice]).quorum()
}

/// Sends one command until its outcome is known; returns the index, if it is in the log.
pub(crate) async fn send(world: &Shared, client: &str, number: u64, order: Command) -> u64 {
    let actor: Arc<str> = format!("dovetail://operator/{client}").into();
    let id = format!("{client}-{number}");
    let mut hint = None;
    for attempt in 0_u64.. {
        world.pause(1..5).await;
        let Some(member) = some_member(world, hint.take()) else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (fence, leader) = {
            let view = member.view.borrow();
            (view.fence, view.leader)
        };
        let Some(fence) = fence else {
            hint = leader;
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let retried = world.plan.is_sabotaged(Sabotage::NewRequestId) && attempt > 0;
        let sent_id = if retried { format!("{id}#{attempt}") } else { id.clone() };
        let proposal = Proposal {
            actor: Arc::clone(&actor),
            request_id: sent_id.as_str().into(),
            cause: "simulated".into(),
            payload: Payload::Command(order.clone()),
        };
        // The answer of a process that ended meanwhile never arrives.
        let answer = member.propose(fence, proposal).await;
        if !world.net.is_running(member.boot) {
            continue;
        }
        match answer {
            Ok(answered) => {
                let index = answered.index.0;
                world.trace.note(format_args!("{sent_id} acknowledged at {index}"));
                world.expect(world.checks().acknowledged.acked(&sent_id, index));
                return index;
            }
            Err(ProposeError::NotLeader { leader }) => hint = leader,
            Err(ProposeError::Unknown { .. } | ProposeError::Refused { .. }) => {}
        }
    }
    0
}

/// Works until it is told to end.
pub(crate) async fn run(world: Shared, client: u64, ends: tokio::sync::watch::Receiver<bool>) {
    let name = format!("c{client}");
    let mut number = 0;
    while !*ends.borrow() {
        if world.random().u8(0..4) == 0 {
            read(&world).await;
        } else {
            number += 1;
            let order = orders::next(&world);
            send(&world, &name, number, order).await;
        }
        world.pause(1..120).await;
    }
}

/// A read must see what was acknowledged to anybody before it began.
async fn read(world: &Shared) {
    let Some(member) = some_member(world, None) else { return };
    let due = world.checks().acknowledged.last();
    if member.read_barrier().await.is_ok() && world.net.is_running(member.boot) {
        let seen = member.state.borrow().applied_index().0;
        world.trace.hash(format_args!("{:?} read {seen}", member.boot));
        world.expect(world.checks().acknowledged.read(due, seen));
    }
}
