//! Many runs, each in a process of its own, and the shortest form of a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Read as _};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::args::Many;
use super::plan::{Kind, Plan};
use super::run::run;
use super::say;

/// A run that takes longer than this hangs.
const RUN_MAX: Duration = Duration::from_secs(120);
/// Runs that are spent to make one failure shorter.
const SHORTEN_RUNS: usize = 60;

/// Runs a plan here, and prints what came of it for [`child`].
pub(crate) fn one(plan: Plan, print: bool) -> ExitCode {
    super::random::seed(plan.seed);
    let outcome = run(plan, print);
    for (kind, count) in &outcome.took_effect {
        say(&format!("count {kind} {count}"));
    }
    for violation in &outcome.violations {
        say(&format!("violation {violation}"));
    }
    say(&format!("hash {}", outcome.hash));
    say(&format!("events {}", outcome.events));
    say(&format!("virtual-ms {}", outcome.virtual_ms));
    say(&format!("acknowledged {}", outcome.acknowledged));
    say(&format!("entries {}", outcome.entries));
    ExitCode::from(u8::from(!outcome.violations.is_empty()))
}

/// What a run in another process came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) hash: String,
    pub(crate) violations: Vec<String>,
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) numbers: BTreeMap<String, u64>,
}

/// Runs a plan in a process of its own. A process that ends otherwise is a violation.
pub(crate) fn child(plan: &Plan) -> Ended {
    let mut ended = Ended::default();
    let command = std::env::current_exe().and_then(|executable| {
        Command::new(executable)
            .arg("sim")
            .args(plan.arguments())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    });
    let mut process = match command {
        Ok(process) => process,
        Err(error) => {
            ended.violations.push(format!("harness: no process: {error}"));
            return ended;
        }
    };
    let (sender, texts) = std::sync::mpsc::channel();
    let read = |is_error: bool, stream: Option<Box<dyn std::io::Read + Send>>| {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_string(&mut text);
            }
            let _ = sender.send((is_error, text));
        });
    };
    read(false, process.stdout.take().map(|stream| Box::new(stream) as _));
    read(true, process.stderr.take().map(|stream| Box::new(stream) as _));
    let (mut output, mut errors, mut hangs) = (String::new(), String::new(), false);
    // Both streams end when the process does.
    for _ in 0..2 {
        match texts.recv_timeout(RUN_MAX) {
            Ok((true, text)) => errors = text,
            Ok((false, text)) => output = text,
            Err(_) => {
                hangs = true;
                let _ = process.kill();
            }
        }
    }
    let _ = process.wait();
    for line in output.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "violation" => ended.violations.push(rest.to_owned()),
            "hash" => rest.clone_into(&mut ended.hash),
            "count" => {
                if let Some((name, count)) = rest.split_once(' ') {
                    ended.counts.insert(name.to_owned(), count.parse().unwrap_or(0));
                }
            }
            _ => {
                ended.numbers.insert(word.to_owned(), rest.parse().unwrap_or(0));
            }
        }
    }
    if hangs {
        ended.violations.push(format!("harness: no end within {RUN_MAX:?}"));
    } else if ended.hash.is_empty() {
        let last: Vec<_> = errors.lines().take(4).collect();
        ended.violations.push(format!("a process ends by itself: {}", last.join(" / ")));
    }
    ended
}

#[derive(Default)]
struct Sum {
    runs: u64,
    entries: u64,
    acknowledged: u64,
    virtual_ms: u64,
    counts: BTreeMap<String, (u64, u64)>,
    failed: Vec<(u64, String)>,
}

/// Runs many seeds, prints how it goes, and fails when one of them did.
pub(crate) fn many(many: &Many) -> ExitCode {
    let (next, sum) = (AtomicU64::new(many.seeds.start), Mutex::new(Sum::default()));
    let (begun, stop) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..many.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = many.budget.is_some_and(|budget| begun.elapsed() > budget);
                    if seed >= many.seeds.end || over {
                        return;
                    }
                    let ended = child(&Plan { sabotage: many.sabotage, ..Plan::of(seed) });
                    let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    add(&mut sum, seed, ended);
                    progress(&sum, many, begun);
                    // A sabotage is found once; otherwise a few failures tell enough.
                    let enough = if many.sabotage.is_some() { 1 } else { 10 };
                    stop.fetch_or(sum.failed.len() >= enough, Ordering::Relaxed);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report(&sum, many, begun)
}

fn add(sum: &mut Sum, seed: u64, ended: Ended) {
    sum.runs += 1;
    let number = |name: &str| ended.numbers.get(name).copied().unwrap_or(0);
    sum.entries += number("entries");
    sum.acknowledged += number("acknowledged");
    sum.virtual_ms += number("virtual-ms");
    for (name, count) in ended.counts {
        let known = sum.counts.entry(name).or_default();
        known.0 += 1;
        known.1 += count;
    }
    if let Some(first) = ended.violations.first() {
        say(&format!("seed {seed} FAILED: {first}"));
        sum.failed.push((seed, first.clone()));
    }
}

fn progress(sum: &Sum, many: &Many, begun: Instant) {
    let every = if std::io::stdout().is_terminal() { 10 } else { 100 };
    if sum.runs.is_multiple_of(every) {
        let all = many.seeds.end - many.seeds.start;
        let done = usize::try_from(20 * sum.runs / all.max(1)).unwrap_or(20);
        let bar = "#".repeat(done) + &".".repeat(20_usize.saturating_sub(done));
        let rate = sum.runs as f64 / begun.elapsed().as_secs_f64();
        say(&format!("[{bar}] {}/{all} runs, {rate:.1}/s, {} failed", sum.runs, sum.failed.len()));
    }
}

fn report(sum: &Sum, many: &Many, begun: Instant) -> ExitCode {
    let seconds = begun.elapsed().as_secs_f64();
    say(&format!(
        "{} runs in {seconds:.1} s ({:.1}/s): {} s of virtual time, {} entries, {} acknowledged",
        sum.runs,
        sum.runs as f64 / seconds,
        sum.virtual_ms / 1_000,
        sum.entries,
        sum.acknowledged
    ));
    say("faults that took effect (in so many runs, so often):");
    for kind in Kind::ALL {
        let (runs, times) = sum.counts.get(kind.name()).copied().unwrap_or_default();
        say(&format!("  {:<20} {runs:>7} {times:>9}", kind.name()));
    }
    let never = never(&sum.counts.keys().cloned().collect());
    if !never.is_empty() && sum.runs >= 200 {
        say(&format!("FAILED: these never took effect: {}", never.join(", ")));
    }
    if let Some((seed, what)) = sum.failed.iter().min_by_key(|(seed, _)| *seed) {
        let plan = Plan { sabotage: many.sabotage, ..Plan::of(*seed) };
        let short = if many.keep_long { plan } else { shorten(plan) };
        say(&format!("{what}\nshortest: cargo sim {} --trace", short.arguments().join(" ")));
        print_trace(&short);
    }
    let bad = !sum.failed.is_empty() || (!never.is_empty() && sum.runs >= 200);
    ExitCode::from(u8::from(bad))
}

/// The faults that are not among those that took effect.
pub(crate) fn never(took_effect: &BTreeSet<String>) -> Vec<&'static str> {
    let names = Kind::ALL.into_iter().map(Kind::name);
    names.filter(|name| !took_effect.contains(*name)).collect()
}

fn print_trace(plan: &Plan) {
    let Ok(executable) = std::env::current_exe() else { return };
    let traced = Command::new(executable).arg("sim").args(plan.arguments()).arg("--trace").output();
    let Ok(traced) = traced else { return };
    let text = String::from_utf8_lossy(&traced.stdout).into_owned();
    let lines: Vec<_> = text.lines().collect();
    // The end of a long one tells most.
    for line in lines.iter().skip(lines.len().saturating_sub(200)) {
        say(&format!("| {line}"));
    }
}

/// The same failure with fewer faults and a shorter chaos, as far as some tries go.
fn shorten(plan: Plan) -> Plan {
    let fails = |plan: &Plan| !child(plan).violations.is_empty();
    let (mut best, mut tries) = (plan, 0);
    let mut try_one = |best: &mut Plan, shorter: Plan| {
        tries += 1;
        let better = tries <= SHORTEN_RUNS && fails(&shorter);
        if better {
            *best = shorter;
        }
        better
    };
    for kind in best.faults.clone() {
        let mut shorter = best.clone();
        shorter.faults.remove(&kind);
        try_one(&mut best, shorter);
    }
    while best.chaos > Duration::from_millis(500) {
        let shorter = Plan { chaos: best.chaos.mul_f64(0.7), ..best.clone() };
        if !try_one(&mut best, shorter) {
            break;
        }
    }
    let fewer = Plan { clients: 1, ..best.clone() };
    try_one(&mut best, fewer);
    best
}
