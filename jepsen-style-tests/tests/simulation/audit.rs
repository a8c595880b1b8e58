//! At the end of a run: one log out of all ledgers, replayed by itself and compared.

use std::collections::BTreeMap;

use dovetail_jepsen::checks::exactly_once::{self, Request};
use dovetail_jepsen::checks::{Violation, replayed};
use dovetail_ledger::{Replay, Until};
use dovetail_proto::convert;
use dovetail_proto::v1 as pb;
use dovetail_routing::fact::Change;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::state::State;
use dovetail_routing::{LogIndex, Payload};

use super::world::{CLUSTER, Shared};

/// Rows read at once.
const PAGE: usize = 1_000;

fn violation(property: &'static str, what: String) -> Violation {
    Violation { property, what }
}

/// Compares everything that was seen with what the ledgers say.
pub(crate) fn check(world: &Shared) {
    let rows = match collect(world) {
        Ok(rows) => rows,
        Err(found) => return world.violated(found),
    };
    let result = replay(world, &rows);
    world.expect(result);
}

/// All rows that survivors hold, by index. Each ledger is verified.
fn collect(world: &Shared) -> Result<BTreeMap<u64, pb::LedgerRow>, Violation> {
    let mut all = BTreeMap::new();
    for member in world.survivors() {
        let Some(process) = member.quorum() else { continue };
        if world.is_damaged(member.id) {
            continue;
        }
        let broken = |reason: String| {
            let what = format!("member {}: {reason}", member.id);
            violation("a ledger holds together", what)
        };
        process.ledger.verify(CLUSTER).map_err(|error| broken(error.to_string()))?;
        let metrics = {
            use openraft::async_runtime::watch::WatchReceiver as _;
            process.raft.metrics().borrow_watched().clone()
        };
        // Whatever Raft has purged must be in the ledger, or below a raft snapshot that was taken
        // over, which may be the last thing that happened: then no row follows it.
        let (covered, _) = process.ledger.head();
        let purged = metrics.purged.map(|id| id.index);
        if purged > Some(covered) {
            return Err(broken(format!("purged up to {purged:?}, the ledger goes to {covered}")));
        }
        let mut next = process.ledger.first();
        loop {
            let rows =
                process.ledger.rows(next, PAGE).map_err(|error| broken(error.to_string()))?;
            let Some(last) = rows.last().map(|row| row.index) else { break };
            all.extend(rows.into_iter().map(|row| (row.index, row)));
            next = last + 1;
        }
    }
    Ok(all)
}

fn replay(world: &Shared, rows: &BTreeMap<u64, pb::LedgerRow>) -> Result<(), Violation> {
    let mut checks = world.checks();
    let (mut state, mut requests, mut log) = (State::default(), Vec::new(), BTreeMap::new());
    let (mut states, mut revisions) = (BTreeMap::new(), BTreeMap::new());
    let wanted: BTreeMap<_, _> = checks.digests.seen().collect();
    states.insert(0, State::default().digest().0);
    let mut digester = dovetail_routing::state::Digester::default();
    let mut next = rows.first_key_value().map_or(0, |(index, _)| *index);
    let complete = next <= 1;
    let begin = State::default();
    let base = dovetail_ledger::Base { index: 0, digest: begin.digest(), state: begin };
    let mut independent = Replay::new(Some(base), next, [0; 32], []);
    for (index, row) in rows {
        if *index != next {
            let what = format!("no member has row {next}");
            return Err(violation("the ledgers hold every entry", what));
        }
        next = index + 1;
        let stepped = independent.step(row, Until::End);
        stepped.map_err(|error| violation("a row can be read", error.to_string()))?;
        if row.kind() != pb::LedgerRowKind::Entry {
            continue;
        }
        let entry = convert::decode_entry(&row.entry)
            .map_err(|error| violation("a row can be read", error.to_string()))?;
        let answered = state.answer(LogIndex(*index), &entry);
        if !entry.request_id.is_empty() {
            // A client that makes a new id for each try means the same request.
            let meant = entry.request_id.split('#').next().unwrap_or_default();
            let id = format!("{}/{meant}", entry.actor);
            let effective = !answered.first_answer;
            requests.push(Request { index: *index, id, effective });
            log.insert(*index, entry.request_id.to_string());
        }
        facts(&mut checks.removals, &entry.payload, &state)?;
        if wanted.contains_key(index) {
            states.insert(*index, digester.digest(&state).0);
        }
        let published = state.published(&ServiceCluster::default());
        revisions.insert(published.snapshot.revision.0, published.digest.0);
    }
    if !complete {
        let what = format!("the first row is {:?}", rows.first_key_value().map(|(index, _)| index));
        return Err(violation("the ledgers hold every entry", what));
    }
    exactly_once::check(&requests)?;
    checks.acknowledged.check(&log)?;
    replayed::check("the state", checks.digests.seen(), &states)?;
    replayed::check("a proxy's snapshot", checks.proxies.seen(), &revisions)?;
    let same = independent.state().map(State::digest) == Some(state.digest());
    same.then_some(()).ok_or_else(|| {
        violation("a replay of the ledger comes to the same", "the ledger's own differs".to_owned())
    })
}

/// What an entry removes was gone, and what is recorded afterwards is no older than before.
fn facts(
    removals: &mut dovetail_jepsen::checks::removals::Removals,
    payload: &Payload,
    state: &State,
) -> Result<(), Violation> {
    let Payload::Observed(observed) = payload else { return Ok(()) };
    for change in &observed.changes {
        match change {
            Change::ServiceGone(id) => removals.removed(id.as_str())?,
            Change::TaskGone(id) => removals.removed(id.as_str())?,
            Change::Service(service) => {
                if let Some(held) = state.service(&service.id) {
                    removals.holds(held.id.as_str(), held.version.0, &format!("{held:?}"))?;
                }
            }
            Change::Task(task) => {
                if let Some(held) = state.task(&task.id) {
                    removals.holds(held.id.as_str(), held.version.0, &format!("{held:?}"))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
