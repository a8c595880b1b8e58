//! One run: form a quorum, let faults happen, heal everything, and see that it serves again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dovetail_jepsen::checks::Violation;
use dovetail_raft_store::sim;
use dovetail_routing::Command;
use dovetail_routing::fact::Listing;
use dovetail_routing::names::ServiceCluster;
use tokio::time::{Instant, sleep, timeout};

use super::member::Member;
use super::plan::{Kind, Plan, Sabotage};
use super::proxies::InForce;
use super::world::{Shared, World};
use super::{audit, clients, nemesis, proxies};

/// Between two looks at all members.
const STEP: Duration = Duration::from_millis(5);
/// After the last fault everything serves again within so long, in virtual time.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<Violation>,
    pub(crate) events: u64,
    pub(crate) hash: String,
    pub(crate) took_effect: BTreeMap<Kind, u64>,
    pub(crate) virtual_ms: u128,
    pub(crate) acknowledged: usize,
    pub(crate) entries: u64,
}

/// Runs a plan to its end, in a runtime of its own.
pub(crate) fn run(plan: Plan, print: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    if let Some(Sabotage::Store(mistake)) = plan.sabotage {
        sim::sabotage(Some(mistake));
    }
    let outcome = runtime.block_on(whole(plan, print));
    // The tasks of crashed processes are of no interest any more.
    runtime.shutdown_background();
    outcome
}

async fn whole(plan: Plan, print: bool) -> Outcome {
    let world = World::new(plan, print);
    if let Err(reason) = story(&world).await {
        world.violated(Violation { property: "liveness", what: reason });
    }
    let (events, hash) = world.trace.end();
    let mut took_effect = world.counts();
    for member in world.members() {
        for (fault, count) in member.device.took_effect() {
            *took_effect.entry(Kind::Disk(fault)).or_default() += count;
        }
    }
    let checks = world.checks();
    Outcome {
        violations: world.violations(),
        events,
        hash,
        took_effect,
        virtual_ms: world.trace.virtual_time().as_millis(),
        acknowledged: checks.acknowledged.count(),
        entries: checks.committed.last(),
    }
}

async fn story(world: &Shared) -> Result<(), String> {
    form(world)?;
    tokio::spawn(inspect(world.clone()));
    // Before the first answer a quorum of one disk may be lost for good: see openraft.
    let first = clients::send(world, "founder", 1, Command::Annotate { text: "first".into() });
    timeout(Duration::from_secs(10), first).await.map_err(|_| "no quorum was formed")?;
    let in_force: Vec<InForce> = (0..world.plan.proxies).map(|_| InForce::default()).collect();
    for (proxy, in_force) in (1..).zip(&in_force) {
        tokio::spawn(proxies::run(world.clone(), proxy, in_force.clone()));
    }
    let (end, ends) = tokio::sync::watch::channel(false);
    let mut working: Vec<_> = (1..=world.plan.clients)
        .map(|client| tokio::spawn(clients::run(world.clone(), client, ends.clone())))
        .collect();
    let until = Instant::now() + world.plan.chaos;
    tokio::spawn(nemesis::run(world.clone(), until));
    while Instant::now() < until {
        world.pause(20..900).await;
        let gone = world.swarm.change();
        let mut checks = world.checks();
        gone.iter().for_each(|object| checks.removals.gone(object));
        for (object, version, content) in contents(&world.swarm.truth()) {
            checks.removals.existed(&object, version, content);
        }
        drop(checks);
        if world.is_violated() {
            return Ok(());
        }
    }
    end.send_replace(true);
    // A nemesis may be about to act for the last time.
    sleep(Duration::from_millis(3_200)).await;
    heal(world);
    let healed = Instant::now();
    let converged = async {
        for work in working.drain(..) {
            let _ = work.await;
        }
        clients::send(world, "last", 1, Command::Annotate { text: "healed".into() }).await;
        while !world.is_violated() && differs(world, &in_force).is_some() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = timeout(HEALED_WITHIN, converged).await;
    if world.is_violated() {
        return Ok(());
    }
    if ended.is_err() {
        let why = differs(world, &in_force).unwrap_or_else(|| "a client has no answer".to_owned());
        return Err(format!("{HEALED_WITHIN:?} after all was healed: {why}"));
    }
    let took = healed.elapsed();
    world.trace.note(format_args!("healed after {took:?}"));
    world.members().iter().for_each(|member| member.inspect(world));
    audit::check(world);
    Ok(())
}

fn form(world: &Shared) -> Result<(), String> {
    let mut nodes = BTreeMap::new();
    let mut ends = BTreeMap::new();
    for id in 1..=world.plan.members {
        let (member, receiver) = Member::new(world, id);
        nodes.insert(id, member.found(world)?);
        world.add(member);
        ends.insert(id, receiver);
    }
    for member in world.members() {
        let found = (member.id == 1).then(|| nodes.clone());
        if let Some(receiver) = ends.remove(&member.id) {
            tokio::spawn(member.supervise(world.clone(), receiver, found));
        }
    }
    Ok(())
}

/// Every object of a listing with its version and all that it says.
fn contents(listing: &Listing) -> Vec<(String, u64, String)> {
    let services = listing.services.values();
    let services = services.map(|one| (one.id.to_string(), one.version.0, format!("{one:?}")));
    let tasks = listing.tasks.values();
    let tasks = tasks.map(|one| (one.id.to_string(), one.version.0, format!("{one:?}")));
    services.chain(tasks).collect()
}

/// Looks at all members at every step.
async fn inspect(world: Shared) {
    loop {
        world.members().iter().for_each(|member| member.inspect(&world));
        sleep(STEP).await;
    }
}

fn heal(world: &Shared) {
    world.trace.note(format_args!("everything heals"));
    world.net.heal();
    world.swarm.heal();
    world.members().iter().for_each(|member| member.device.free());
}

/// What is not as it has to be in the end, if anything.
fn differs(world: &Shared, in_force: &[InForce]) -> Option<String> {
    let mut positions = BTreeSet::new();
    let mut newest = None;
    for member in world.survivors() {
        let Some(process) = member.quorum() else {
            return Some(format!("member {} does not run", member.id));
        };
        let state = process.state.borrow().clone();
        let applied = process.view.borrow().applied;
        positions.insert((applied, state.applied_index()));
        newest = Some(state);
    }
    // That their states are equal is checked at every step.
    if positions.len() != 1 {
        return Some(format!("members are at {positions:?}"));
    }
    let state = newest?;
    let difference = state.difference(&world.swarm.truth());
    if !difference.is_empty() && !world.swarm.was_restored() {
        return Some(format!(
            "the log lacks {} changes and {} removals of Docker",
            difference.upserts.len(),
            difference.removals.len()
        ));
    }
    let revision = state.revision(&ServiceCluster::default());
    for (proxy, in_force) in (1..).zip(in_force) {
        let at = in_force.get().map(|position| position.revision);
        if revision.0 > 0 && at != Some(revision) {
            return Some(format!("proxy {proxy} is at {at:?}, not at {revision}"));
        }
    }
    None
}
