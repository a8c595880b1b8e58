//! The figures, for people and for machines.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::commits::Commits;
use crate::events::Events;
use crate::failover::Failovers;
use crate::size::Size;
use crate::transfer::Transfers;

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    notes: Vec<String>,
    pub(crate) commits: Vec<Commits>,
    /// Bytes that the leader held after the commits.
    pub(crate) memory: Vec<(&'static str, u64)>,
    pub(crate) transfers: Vec<Transfers>,
    pub(crate) failovers: Vec<Failovers>,
    pub(crate) size: Option<Size>,
    pub(crate) events: Option<Events>,
}

/// Where it ran: figures of different machines do not compare.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpus: usize,
    model: String,
    kernel: String,
    load_before: String,
    /// Debug builds are slower.
    optimised: bool,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|line| line.split_once(':')).map_or("", |(_, name)| name);
        Self {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            model: model.trim().to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            optimised: !cfg!(debug_assertions),
        }
    }
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            notes: Vec::new(),
            commits: Vec::new(),
            memory: Vec::new(),
            transfers: Vec::new(),
            failovers: Vec::new(),
            size: None,
            events: None,
        }
    }

    /// The rounds of each measurement, by work, clients and target.
    pub(crate) fn rows(&self) -> BTreeMap<(&'static str, usize, &'static str), Vec<&Commits>> {
        let mut rows = BTreeMap::<_, Vec<&Commits>>::new();
        for one in &self.commits {
            rows.entry((one.work, one.clients, one.target)).or_default().push(one);
        }
        rows
    }

    pub(crate) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }
}

/// The middle one of `values`.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpus, model, kernel, load_before, optimised } = &self.machine;
        writeln!(f, "three members on loopback, fsync on, mutual TLS")?;
        writeln!(f, "{cpus} CPUs, {model}, Linux {kernel}, load before {load_before}")?;
        if !optimised {
            writeln!(f, "built with assertions: for figures that count, build with --release")?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        writeln!(
            f,
            "\n{:<10} {:>6} {:>8} {:>12} {:>10} {:>10} {:>11} {:>12}  (medians of the rounds)",
            "", "work", "clients", "per second", "p50 ms", "p99 ms", "worst ms", "CPU µs each"
        )?;
        for ((work, clients, target), rounds) in self.rows() {
            let of = |figure: fn(&Commits) -> f64| {
                median(rounds.iter().map(|commits| figure(commits)).collect())
            };
            writeln!(
                f,
                "{target:<10} {work:>6} {clients:>8} {:>12.0} {:>10.2} {:>10.2} {:>11.1} {:>12.0}",
                of(|c| c.per_second),
                of(|c| c.p50_ms),
                of(|c| c.p99_ms),
                of(|c| c.worst_ms),
                of(|c| c.cpu_us_per_command),
            )?;
            let failed: u64 = rounds.iter().map(|commits| commits.failed).sum();
            if failed > 0 {
                let reason = rounds.iter().find_map(|commits| commits.failure.as_deref());
                writeln!(f, "           {failed} failed: {}", reason.unwrap_or_default())?;
            }
        }
        writeln!(
            f,
            "\n{:<10} {:>8} {:>12} {:>10} {:>18}",
            "failover", "kills", "median ms", "worst ms", "longest hang ms"
        )?;
        for one in &self.failovers {
            writeln!(
                f,
                "{:<10} {:>8} {:>12.0} {:>10.0} {:>18.0}",
                one.target, one.kills, one.median_ms, one.worst_ms, one.longest_hang_ms
            )?;
        }
        writeln!(
            f,
            "\n{:<10} {:>10} {:>12} {:>10}",
            "transfer", "transfers", "median ms", "worst ms"
        )?;
        for one in &self.transfers {
            let Transfers { target, transfers, median_ms, worst_ms, .. } = one;
            writeln!(f, "{target:<10} {transfers:>10} {median_ms:>12.0} {worst_ms:>10.0}")?;
        }
        for (target, bytes) in &self.memory {
            writeln!(f, "{target}'s leader held {} MiB after the commits", bytes / 1_024 / 1_024)?;
        }
        if let Some(size) = &self.size {
            let Size { services, tasks, taken_s, leader_mib, answers_ms, ready_ms } = size;
            writeln!(
                f,
                "{services} services, {tasks} tasks: taken in within {taken_s:.1} s of the start, the \
                 leader holds {leader_mib:.0} MiB; after a restart of all the first answer came \
                 after {answers_ms:.0} ms, all were ready after {ready_ms:.0} ms"
            )?;
        }
        if let Some(events) = &self.events {
            writeln!(
                f,
                "\n{} Docker events: a new service answers through {} proxies after {:.0} ms (median), \
                 {:.0} ms (p90), {:.0} ms (worst)",
                events.events, events.proxies, events.median_ms, events.p90_ms, events.worst_ms
            )?;
        }
        Ok(())
    }
}
