//! Verbs over a data folder that no member uses: `log verify`, `log export`, `replay`, and
//! those of [`crate::restore`].
//!
//! The folder is locked meanwhile, and by the former only read, so that a running member is never
//! disturbed: it is asked with `dovetail log verify` instead.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use dovetail_ledger::verify::collect;
use dovetail_ledger::{Base, Exporter, Header, Replay, RowsOf, Until};
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_raft_store::offline::{NewQuorum, OfflineError};
use dovetail_raft_store::{Offline, Rows, open_offline};
use dovetail_routing::Digest;
use dovetail_routing::state::State;
use serde_json::json;

use crate::restore::{self, RecoverArgs, RestoreArgs};

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
    Replay {
        #[command(flatten)]
        folder: DataDir,
        /// After this index
        #[arg(long, value_name = "REVISION")]
        until: Option<u64>,
    },
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
    Export {
        /// Where to; what is there is never overwritten
        file: PathBuf,
        #[command(flatten)]
        folder: DataDir,
        /// Holds cert.pem and key.pem of whoever signs
        #[arg(long, value_name = "DIR")]
        tls_dir: Option<PathBuf>,
    },
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
        Verb::Replay { folder, until } => replay(&folder, until, json),
        Verb::Restore(args) => new_quorum(restore::restore(&args), json),
        Verb::Recover(args) => new_quorum(restore::recover(&args), json),
        Verb::Log(Log::Verify { folder }) => verify(&folder, json),
        Verb::Log(Log::Export { file, folder, tls_dir }) => export(&file, &folder, tls_dir, json),
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

/// What the newest rows without a gap come to, or the first place that is broken.
fn replayed(offline: &Offline, until: Until) -> Result<Replay, dovetail_ledger::ExportError> {
    let mut named = Vec::new();
    collect(&mut Rows::of(offline), &mut named)?;
    let (first, previous) = offline.ledger.newest_run();
    let empty = || Base { index: 0, digest: State::default().digest(), state: State::default() };
    let base = (first == 0).then(empty);
    let mut replay = Replay::new(base, first, previous, named);
    replay.run(&mut Rows::of(offline), until)?;
    Ok(replay)
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
    // Every run of rows, then the newest once more, applied.
    let verified = match offline.ledger.verify(&offline.owner.cluster_id) {
        Ok(verified) => verified,
        Err(error) => return Ok(broken(json, Some(error.index), &error.to_string())),
    };
    let replay = match replayed(&offline, Until::End) {
        Ok(replay) => replay,
        Err(error) => {
            return Ok(broken(json, error.index(), &dovetail_process::chain(&error)));
        }
    };
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
            "checkpoints": replay.checkpoints(),
            "unchecked": replay.unchecked(),
        }));
    } else {
        print(format_args!(
            "{} rows, {first} to {last}, hold together; {} checkpoints agree",
            verified.rows,
            replay.checkpoints()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn replay(folder: &DataDir, until: Option<u64>, json: bool) -> anyhow::Result<ExitCode> {
    let offline = folder.open()?;
    let until = until.map_or(Until::End, Until::Index);
    let replay = match replayed(&offline, until) {
        Ok(replay) => replay,
        Err(error) => {
            return Ok(broken(json, error.index(), &dovetail_process::chain(&error)));
        }
    };
    let Some(state) = replay.state() else {
        anyhow::bail!(
            "the ledger begins at {}, and the state before it is not kept: it can be verified, \
             not replayed",
            offline.ledger.newest_run().0
        );
    };
    let clusters: Vec<_> = state
        .service_clusters()
        .iter()
        .map(|name| {
            let published = state.published(name);
            json!({
                "name": name.to_string(),
                "revision": published.snapshot.revision.0,
                "digest": published.digest.to_string(),
            })
        })
        .collect();
    let divergence = replay.divergence().map(|divergence| {
        json!({
            "index": divergence.index,
            "checkpoint": divergence.checkpoint,
            "what": divergence.what,
            "expected": divergence.expected,
            "found": divergence.found,
        })
    });
    let diverged = divergence.is_some();
    if json {
        print(json!({
            "index": replay.index(),
            "service_clusters": clusters,
            "checkpoints": replay.checkpoints(),
            "unchecked": replay.unchecked(),
            "entries": replay.entries(),
            "state": state.digest().to_string(),
            "divergence": divergence,
        }));
    } else {
        clusters.iter().for_each(print);
        print(format_args!(
            "{} entries, up to index {}; {} checkpoints agree",
            replay.entries(),
            replay.index(),
            replay.checkpoints()
        ));
        if let Some(divergence) = divergence {
            print(format_args!("first difference: {divergence}"));
        }
    }
    Ok(ExitCode::from(u8::from(diverged)))
}

fn export(
    path: &PathBuf,
    folder: &DataDir,
    tls_dir: Option<PathBuf>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let offline = folder.open()?;
    let tls = tls_dir.map(|dir| TlsDir::load(&dir)).transpose()?;
    let (first, previous) = offline.ledger.newest_run();
    let exporter = match &tls {
        Some(tls) => tls.identity().to_string(),
        None => format!("dovetail://member/{}", offline.owner.slot),
    };
    let header = Header {
        cluster_id: offline.owner.cluster_id.clone(),
        ancestors: offline.owner.ancestors.clone(),
        first,
        made_at_ms: now_ms(),
        exporter,
        previous,
    };
    let in_file = || path.display().to_string();
    let file = OpenOptions::new().write(true).create_new(true).open(path).with_context(in_file)?;
    let mut out = Exporter::begin(BufWriter::new(file), &header, None)?;
    let mut rows = Rows::of(&offline);
    while let Some(row) = rows.next_row()? {
        out.row(row)?;
    }
    let last = rows.chain().next().saturating_sub(1);
    let sign = |statement: &[u8]| {
        let signed = tls.as_ref().map(|tls| tls.sign(statement)).transpose()?;
        Ok(signed.map(|signed| pb::ExportSignature {
            scheme: signed.scheme.into(),
            chain: signed.chain,
            signature: signed.signature,
        }))
    };
    let (mut file, head) = out.finish(now_ms(), sign)?;
    file.flush().with_context(in_file)?;
    file.get_ref().sync_all().with_context(in_file)?;
    let (count, head) = (rows.chain().rows(), Digest(head));
    match json {
        true => print(json!({
            "file": path.display().to_string(),
            "cluster_id": header.cluster_id,
            "first": first,
            "last": last,
            "rows": count,
            "head": head.to_string(),
            "exporter": header.exporter,
        })),
        false => {
            let signed = if tls.is_some() { "signed by" } else { "unsigned, of" };
            print(format_args!(
                "{}: {count} rows, {first} to {last}, {signed} {}",
                path.display(),
                header.exporter
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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
