//! What CI runs: fixed seeds, a fresh one, the same one twice, and mistakes that must be found.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Failed, Trial};

use super::fleet::{child, never};
use super::plan::{Plan, Sabotage};

/// How many fixed seeds are run; the variable makes it more.
const SEEDS: u64 = 60;
const SEEDS_VARIABLE: &str = "DOVETAIL_SIM_SEEDS";

/// Mistakes that are built in, and the seed that found each; when what seeds mean has
/// changed, one of the next [`WITHIN`] has to.
const MUST_BE_FOUND: [(&str, u64); 22] = [
    ("ack-before-fsync", 1),
    ("skip-vote-fsync", 61),
    ("drop-last-entry", 1),
    ("snapshot-without-members", 2),
    ("purge-before-ledger", 0),
    ("unconfirmed-read", 109),
    ("delete-on-first-absence", 5),
    ("accept-lower-version", 2),
    ("wall-clock-in-reducer", 0),
    ("proxy-takes-older", 2),
    ("retry-without-request-id", 2),
    ("ack-without-quorum", 0),
    ("leader-restored", 34),
    ("vote-fsync-after-append", 2),
    ("two-write-ahead-logs", 57),
    ("point-in-time-recovery", 2),
    ("hash-map-in-reducer", 0),
    ("last-applied-lags", 2),
    ("event-only-ingest", 6),
    ("reuse-node-id", 4),
    ("lost-delta", 0),
    ("transfer-to-lagging", 1),
];
const WITHIN: u64 = 150;

fn seeds() -> u64 {
    std::env::var(SEEDS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

/// Runs the tests that the command line asks for.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("the_same_seed_twice_is_the_same_run", twice),
        Trial::test("fixed_seeds_hold_and_every_fault_takes_effect", fixed),
        Trial::test("a_fresh_seed_holds", fresh),
    ];
    for (name, from) in MUST_BE_FOUND {
        let found = move || is_found(name, from);
        trials.push(Trial::test(format!("sabotage_{}_is_found", name.replace('-', "_")), found));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn twice() -> Result<(), Failed> {
    for seed in 1_000..1_004 {
        let (first, second) = (child(&Plan::of(seed)), child(&Plan::of(seed)));
        if first.hash != second.hash || first.hash.is_empty() {
            return Err(format!("seed {seed} is two runs: {first:?}, {second:?}").into());
        }
    }
    let (one, other) = (child(&Plan::of(1_000)), child(&Plan::of(1_001)));
    if one.hash == other.hash {
        return Err("two seeds are one run".into());
    }
    Ok(())
}

fn holds(seed: u64) -> Result<BTreeSet<String>, String> {
    let ended = child(&Plan::of(seed));
    match ended.violations.first() {
        None => Ok(ended.counts.into_keys().collect()),
        Some(found) => Err(format!("seed {seed}: {found}: cargo sim --seed {seed} --trace")),
    }
}

fn fixed() -> Result<(), Failed> {
    let took_effect = Mutex::new(BTreeSet::new());
    for seed in 0..seeds() {
        took_effect.lock().map_err(|_| "a thread panicked")?.extend(holds(seed)?);
    }
    let took_effect = took_effect.into_inner().map_err(|_| "a thread panicked")?;
    match never(&took_effect) {
        never if never.is_empty() => Ok(()),
        never => Err(format!("never took effect: {}", never.join(", ")).into()),
    }
}

fn fresh() -> Result<(), Failed> {
    let seed = u64::from(fastrand::u32(..));
    super::say(&format!("fresh seed {seed}"));
    holds(seed).map(drop).map_err(Into::into)
}

fn is_found(name: &str, from: u64) -> Result<(), Failed> {
    let sabotage: Sabotage = name.parse()?;
    let red = |seed: &u64| {
        let plan = Plan { sabotage: Some(sabotage), ..Plan::of(*seed) };
        !child(&plan).violations.is_empty()
    };
    match (from..from + WITHIN).find(red) {
        Some(_) => Ok(()),
        None => Err(format!("{name} was not found in {WITHIN} runs from seed {from} on").into()),
    }
}
