//! Faults, one after the other and several at once, until the chaos ends.

use std::time::Duration;

use dovetail_raft_store::sim::Fault;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::{Instant, sleep};

use super::member::{End, Member};
use super::plan::Kind;
use super::world::Shared;

/// Injects faults of the plan until `until`.
pub(crate) async fn run(world: Shared, until: Instant) {
    let kinds: Vec<Kind> = world.plan.faults.iter().copied().collect();
    while Instant::now() < until {
        world.pause(50..1_200).await;
        let choice = world.random().choice(&kinds).copied();
        if let Some(kind) = choice {
            inject(&world, kind);
        }
        // A new fault may come before the last one is over, or after.
        if world.random().u8(0..3) == 0 {
            world.trace.note(format_args!("links heal"));
            world.net.heal();
        }
    }
}

fn some_member(world: &Shared) -> Option<std::sync::Arc<Member>> {
    let members = world.members();
    let leader = members
        .iter()
        .find(|member| member.quorum().is_some_and(|quorum| quorum.view.borrow().fence.is_some()));
    let mut random = world.random();
    // The leader is hit more often than chance has it.
    match leader {
        Some(leader) if random.bool() => Some(leader.clone()),
        _ => random.choice(&members).cloned(),
    }
}

fn inject(world: &Shared, kind: Kind) {
    let Some(member) = some_member(world) else { return };
    let id = member.id;
    let all: Vec<u64> = (1..=world.plan.members).collect();
    let others: Vec<u64> = all.iter().copied().filter(|other| *other != id).collect();
    let length = Duration::from_millis(world.random().u64(100..3_000));
    if kind.is_destructive() && !world.may_damage(id) {
        return;
    }
    world.trace.note(format_args!("fault {kind} at member {id}"));
    match kind {
        Kind::Kill | Kind::PowerCut => {
            if member.quorum().is_some() {
                world.count(kind);
            }
            member.end(if kind == Kind::Kill { End::Kill } else { End::PowerCut });
        }
        Kind::Blackout => {
            for member in world.members() {
                if member.quorum().is_some() {
                    world.count(kind);
                }
                member.end(End::PowerCut);
            }
        }
        Kind::Partition => {
            let (side, rest) = halves(world, &all);
            let between = side.iter().flat_map(|a| rest.iter().map(move |b| (*a, *b)));
            let links: Vec<_> = between.flat_map(|(a, b)| [(a, b), (b, a)]).collect();
            world.net.cut(links);
        }
        Kind::OneWay => {
            let out = world.random().bool();
            world.net.cut(others.iter().map(|other| if out { (id, *other) } else { (*other, id) }));
        }
        Kind::Loss => world.net.set_loss(world.random().f64() * 0.3),
        Kind::Duplicate => world.net.set_duplicates(world.random().f64() * 0.3),
        Kind::SlowLinks => {
            world.net.slow(others.iter().flat_map(|other| [(id, *other), (*other, id)]));
        }
        Kind::Clog => swizzle(world, &all),
        Kind::ClockJump => {
            let off = world.random().i64(-600_000..600_000);
            member.set_clock(off);
            world.count(kind);
        }
        Kind::Transfer => transfer(world, &member, &others),
        Kind::Disk(fault) => disk(world, &member, fault, length),
        Kind::DockerDropsEvents => world.swarm.drop_events(length),
        Kind::DockerIsStale => world.swarm.be_stale(),
        Kind::DockerFails => world.swarm.fail(length),
        Kind::DockerIsRestored => {
            if let Some(gone) = world.swarm.restore() {
                world.count(kind);
                let mut checks = world.checks();
                gone.iter().for_each(|object| checks.removals.gone(object));
            }
        }
        // Proxies restart by themselves.
        Kind::ProxyRestart => {}
    }
}

fn halves(world: &Shared, all: &[u64]) -> (Vec<u64>, Vec<u64>) {
    let mut random = world.random();
    let mut all = all.to_vec();
    random.shuffle(&mut all);
    let rest = all.split_off(random.usize(1..all.len()));
    (all, rest)
}

/// Links stop one after the other, and go on in another order: "swizzle-clog".
fn swizzle(world: &Shared, all: &[u64]) {
    let mut links: Vec<_> = all
        .iter()
        .flat_map(|a| all.iter().map(move |b| (*a, *b)))
        .filter(|(a, b)| a != b && world.random().bool())
        .collect();
    let world = world.clone();
    tokio::spawn(async move {
        for link in links.clone() {
            world.net.clog([link]);
            world.pause(1..100).await;
        }
        world.random().shuffle(&mut links);
        for link in links {
            world.pause(1..300).await;
            world.net.unclog(link);
        }
    });
}

fn transfer(world: &Shared, member: &Member, others: &[u64]) {
    let Some(quorum) = member.quorum() else { return };
    let leads = quorum.raft.metrics().borrow_watched().state == openraft::ServerState::Leader;
    let to = world.random().choice(others).copied();
    if let Some(to) = to.filter(|_| leads) {
        world.count(Kind::Transfer);
        tokio::spawn(async move { drop(quorum.raft.trigger().transfer_leader(to).await) });
    }
}

fn disk(world: &Shared, member: &std::sync::Arc<Member>, fault: Fault, length: Duration) {
    member.device.arm(fault);
    match fault {
        Fault::Full | Fault::Slow => {
            let device = member.device.clone();
            tokio::spawn(async move {
                sleep(length).await;
                device.free();
            });
        }
        // What lies there is read, or lost, in the next start.
        Fault::RowFlips | Fault::SnapshotFlips => member.end(End::Kill),
        Fault::SuffixLost => member.end(End::PowerCut),
        Fault::WriteFails | Fault::SyncFails | Fault::FileFails => {}
    }
    let _ = world;
}
