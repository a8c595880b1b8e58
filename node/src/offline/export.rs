//! `dovetaild log export`: the ledger of a folder as a file, with the state before its first row.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use dovetail_ledger::{Exporter, Header, LedgerHash, RowsOf as _};
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_raft_store::{Offline, Rows};
use dovetail_routing::Digest;
use dovetail_routing::state::State;
use serde_json::json;

use super::{DataDir, print, replay_of};

/// What is exported, and by whom.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Where to; what is there is never overwritten
    file: PathBuf,
    #[command(flatten)]
    folder: DataDir,
    /// The first index; 0 is the oldest kept
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// The last index; 0 is the newest
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    to: u64,
    /// Holds cert.pem and key.pem of whoever signs
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
}

/// Where an export begins.
struct Beginning {
    first: u64,
    previous: LedgerHash,
    /// The state before it, where it can be had; where the log begins, it is none.
    state: Option<State>,
}

/// The state before `from`, if an older one is kept; 0 is the oldest that is kept.
fn beginning(offline: &Offline, from: u64) -> anyhow::Result<Beginning> {
    let start = offline.start()?;
    if from > start.first && start.state.is_some() {
        let mut replay = replay_of(&start, Vec::new());
        let rows = Rows::after(offline, start.first, start.previous);
        let mut rows = rows.up_to(from - 1);
        replay.run(&mut rows, dovetail_ledger::Until::End)?;
        let previous = rows.chain().head();
        return Ok(Beginning { first: from, previous, state: replay.state().cloned() });
    }
    if from == 0 || from == start.first {
        let state = start.state.filter(|_| start.first > 0);
        return Ok(Beginning { first: start.first, previous: start.previous, state });
    }
    // No state is at hand: the rows can be verified.
    let (oldest, _) = offline.ledger.newest_run();
    anyhow::ensure!(from >= oldest, "--from {from}: this ledger begins at {oldest}");
    let previous = offline.ledger.hash_at(from - 1)?;
    let previous = previous.with_context(|| format!("ledger row {} is missing", from - 1))?;
    Ok(Beginning { first: from, previous, state: None })
}

pub(super) fn export(args: &Export, json: bool) -> anyhow::Result<ExitCode> {
    let offline = args.folder.open()?;
    let (newest, _) = offline.ledger.head();
    let end = if args.to == 0 { newest } else { args.to.min(newest) };
    anyhow::ensure!(args.from <= end, "--from {}: lies behind {end}, the last row", args.from);
    let tls = args.tls_dir.as_deref().map(TlsDir::load).transpose()?;
    let Beginning { first, previous, state } = beginning(&offline, args.from)?;
    anyhow::ensure!(first <= end || newest == 0, "--to {end}: this ledger begins at {first}");
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
    let path: &Path = &args.file;
    let in_file = || path.display().to_string();
    let file = OpenOptions::new().write(true).create_new(true).open(path).with_context(in_file)?;
    let state = state.map(|state| (state.encode(), state.digest()));
    let base = state.as_ref().map(|(bytes, digest)| (&**bytes, *digest));
    let mut out = Exporter::begin(BufWriter::new(file), &header, base)?;
    let mut rows = Rows::after(&offline, first, previous).up_to(end);
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
