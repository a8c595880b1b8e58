//! What is asked on the command line of `cargo sim`.

use std::time::Duration;

use super::plan::{Kind, Plan, Sabotage};

/// Many runs.
#[derive(Clone, Debug)]
pub(crate) struct Many {
    pub(crate) seeds: std::ops::Range<u64>,
    pub(crate) jobs: usize,
    pub(crate) sabotage: Option<Sabotage>,
    /// Do not look for a shorter failure.
    pub(crate) keep_long: bool,
    /// Begin no run after so long.
    pub(crate) budget: Option<Duration>,
}

#[derive(Debug)]
pub(crate) enum Asked {
    /// One run, and whether its trace is printed.
    One(Plan, bool),
    Many(Many),
}

const USAGE: &str = "usage: cargo sim --seeds A..B [--jobs N] [--minutes M] [--sabotage NAME] \
     [--keep-long] | cargo sim --seed N [--trace] [--without FAULT,FAULT] [--only FAULT,FAULT] \
     [--chaos-ms N] [--clients N] [--sabotage NAME]";

/// `None` when tests are asked for.
pub(crate) fn asked(arguments: &[String]) -> Option<Result<Asked, String>> {
    let (first, rest) = arguments.split_first()?;
    (first == "sim").then(|| parse(rest))
}

fn parse(arguments: &[String]) -> Result<Asked, String> {
    let mut given = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None if matches!(&**word, "--trace" | "--keep-long") => (&**word, None),
            None => (&**word, words.next().cloned()),
        };
        given.push((name.to_owned(), value.unwrap_or_default()));
    }
    let value = |name: &str| given.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let number = |name: &str| {
        let parse = |text: &String| {
            text.parse::<u64>().map_err(|_| format!("{name} {text:?} is no number\n{USAGE}"))
        };
        value(name).map(parse).transpose()
    };
    let known = [
        "--seeds",
        "--seed",
        "--jobs",
        "--minutes",
        "--sabotage",
        "--keep-long",
        "--trace",
        "--without",
        "--only",
        "--chaos-ms",
        "--clients",
    ];
    if let Some((name, _)) = given.iter().find(|(name, _)| !known.contains(&&**name)) {
        return Err(format!("{name:?} is unknown\n{USAGE}"));
    }
    let sabotage = value("--sabotage").map(|name| name.parse()).transpose()?;
    if let Some(seed) = number("--seed")? {
        let mut plan = Plan { sabotage, ..Plan::of(seed) };
        for name in value("--without").into_iter().flat_map(|names| names.split(',')) {
            plan.faults.remove(&name.parse::<Kind>()?);
        }
        if let Some(only) = value("--only") {
            plan.faults = only.split(',').map(str::parse).collect::<Result<_, _>>()?;
        }
        plan.chaos = number("--chaos-ms")?.map_or(plan.chaos, Duration::from_millis);
        plan.clients = number("--clients")?.unwrap_or(plan.clients);
        return Ok(Asked::One(plan, value("--trace").is_some()));
    }
    let seeds = value("--seeds").ok_or(USAGE)?;
    let range = seeds
        .split_once("..")
        .and_then(|(from, end)| Some(from.parse::<u64>().ok()?..end.parse::<u64>().ok()?));
    let seeds = range.ok_or_else(|| format!("--seeds {seeds:?} is not like 0..100"))?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = number("--jobs")?.and_then(|jobs| usize::try_from(jobs).ok());
    Ok(Asked::Many(Many {
        seeds,
        jobs: jobs.unwrap_or(processors).max(1),
        sabotage,
        keep_long: value("--keep-long").is_some(),
        budget: number("--minutes")?.map(|minutes| Duration::from_secs(60 * minutes)),
    }))
}
