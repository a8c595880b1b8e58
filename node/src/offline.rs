//! Verbs over a data folder that no member uses: `log verify`, `log export`, `replay`, and
//! those of [`crate::restore`].
//!
//! The folder is locked meanwhile, and by the former only read, so that a running member is never
//! disturbed: it is asked with `dovetail log verify` instead.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use dovetail_ledger::verify::collect;
use dovetail_ledger::{Base, Named, Replay, Until};
use dovetail_raft_store::offline::{NewQuorum, OfflineError};
use dovetail_raft_store::{Offline, Rows, Start, open_offline};
use dovetail_routing::Digest;
use serde_json::json;

use crate::restore::{self, RecoverArgs, RestoreArgs};

mod export;
mod replay;

/// What is done offline; the first argument tells it from a member's flags.
const VERBS: &[&str] = &["log", "replay", "restore", "recover"];

/// A member's data folder, without a member.
#[derive(Debug, Parser)]
#[command(name = "dovetaild", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// What the answer looks like
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The ledger of a data folder
    #[command(subcommand)]
    Log(Log),
    /// What the ledger of a data folder comes to
    Replay(replay::Replay),
    /// Makes a new quorum of one member out of a backup
    #[command(after_help = "Example:\n  dovetaild restore today.backup --new-cluster --id 1 \
        --advertise core-1:8080 --data-dir /data")]
    Restore(RestoreArgs),
    /// Makes a new quorum of one member out of what its folder holds; the folder's files
    /// are set aside within it
    #[command(after_help = "Example:\n  dovetaild recover --force-new-cluster --id 1 \
        --advertise core-1:8080 --data-dir /data")]
    Recover(RecoverArgs),
}

#[derive(Debug, Subcommand)]
enum Log {
    /// Checks chain, gaps, order and checkpoints: exit 1 when anything is wrong
    Verify {
        #[command(flatten)]
        folder: DataDir,
    },
    /// Writes the ledger into a file, signed if --tls-dir is given
    Export(export::Export),
}

#[derive(Debug, clap::Args)]
struct DataDir {
    /// The data folder of a member that does not run
    #[arg(long, env = "DOVETAIL_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
}

impl DataDir {
    fn open(&self) -> anyhow::Result<Offline> {
        Ok(open_offline(&self.data_dir)?)
    }
}

/// Whether the command line asks for one of these verbs.
pub(crate) fn is_asked() -> bool {
    std::env::args().nth(1).is_some_and(|first| VERBS.contains(&&*first))
}

/// Does what the command line says.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let Args { verb, output } = Args::parse();
    let json = output == Output::Json;
    match verb {
        Verb::Replay(args) => replay::replay(&args, json),
        Verb::Restore(args) => new_quorum(restore::restore(&args), json),
        Verb::Recover(args) => new_quorum(restore::recover(&args), json),
        Verb::Log(Log::Verify { folder }) => verify(&folder, json),
        Verb::Log(Log::Export(args)) => export::export(&args, json),
    }
}

/// Makes a new quorum, and says what it holds.
fn new_quorum(
    make: impl Future<Output = Result<NewQuorum, OfflineError>>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let made = tokio::runtime::Builder::new_current_thread().build()?.block_on(make)?;
    match json {
        true => print(restore::in_json(&made)),
        false => print(restore::in_words(&made)),
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn print(line: impl std::fmt::Display) {
    println!("{line}");
}

/// What the rows after the oldest state that is kept come to, or the first place that is broken.
fn replayed(
    offline: &Offline,
    start: &Start,
    until: Until,
) -> Result<Replay, dovetail_ledger::ExportError> {
    let rows = || Rows::after(offline, start.first, start.previous);
    let mut named = Vec::new();
    collect(&mut rows(), &mut named)?;
    let mut replay = replay_of(start, named);
    replay.run(&mut rows(), until)?;
    Ok(replay)
}

/// Before the first row that can be applied.
fn replay_of(start: &Start, named: Vec<Named>) -> Replay {
    let base = start.state.clone().map(|state| Base {
        index: start.first.saturating_sub(1),
        digest: state.digest(),
        state,
    });
    Replay::new(base, start.first, start.previous, named)
}

fn broken(json: bool, index: Option<u64>, reason: &str) -> ExitCode {
    match json {
        true => print(json!({"ok": false, "broken_index": index, "reason": reason})),
        false => print(reason),
    }
    ExitCode::from(1)
}

fn verify(folder: &DataDir, json: bool) -> anyhow::Result<ExitCode> {
    let offline = folder.open()?;
    // Every run of rows, then what follows on a state once more, applied.
    let verified = match offline.ledger.verify(&offline.owner.cluster_id) {
        Ok(verified) => verified,
        Err(error) => return Ok(broken(json, Some(error.index), &error.to_string())),
    };
    let start = offline.start()?;
    let replay = match replayed(&offline, &start, Until::End) {
        Ok(replay) => replay,
        Err(error) => {
            return Ok(broken(json, error.index(), &dovetail_process::chain(&error)));
        }
    };
    let replays_from = start.state.as_ref().map(|_| start.first.saturating_sub(1));
    if let Some(divergence) = replay.divergence() {
        let reason = format!(
            "replayed, the {} at {} is {}, and the quorum had {}",
            divergence.what, divergence.index, divergence.found, divergence.expected
        );
        return Ok(broken(json, Some(divergence.index), &reason));
    }
    let (first, last) = (verified.first.unwrap_or_default(), verified.last.unwrap_or_default());
    if json {
        print(json!({
            "ok": true,
            "cluster_id": offline.owner.cluster_id,
            "first": first,
            "last": last,
            "rows": verified.rows,
            "head": Digest(verified.hash).to_string(),
            "gaps": verified.gaps,
            "replays_from": replays_from,
            "base_damaged": start.damaged,
            "checkpoints": replay.checkpoints(),
            "unchecked": replay.unchecked(),
        }));
    } else {
        print(format_args!(
            "{} rows, {first} to {last}, hold together; {} checkpoints agree",
            verified.rows,
            replay.checkpoints()
        ));
        print(match replays_from {
            Some(index) => format!("states can be rebuilt from index {index} on"),
            None => "no state is kept: rows can be verified, not replayed".to_owned(),
        });
        start.damaged.iter().for_each(|reason| print(format_args!("damaged: {reason}")));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_offline_command_line_is_sound() {
        Args::command().debug_assert();
        let named = Args::command();
        let verbs: Vec<_> = named.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(verbs, VERBS);
    }
}
