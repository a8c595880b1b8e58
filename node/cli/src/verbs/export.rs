//! `log export`: the ledger as a file; `log follow`: entries as they are applied.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use dovetail_ledger::{ExportReader, Trailer};
use dovetail_proto::v1 as pb;
use tonic::{Status, Streaming};

use super::log;
use crate::core::Core;
use crate::failure::{Failure, Meaning};
use crate::json;
use crate::out::{Out, printable};

pub(crate) async fn export(
    core: &Core,
    out: &Out,
    path: &Path,
    from: u64,
    to: u64,
    timeout: Duration,
) -> Result<ExitCode, Failure> {
    if path.symlink_metadata().is_ok() {
        let reason = format!("{}: is there already, and is never overwritten", path.display());
        return Err(Failure::Usage(reason));
    }
    let request = pb::ExportLogRequest { from, to };
    let mut pieces = core.ask(|mut client| async move { client.export_log(request).await }).await?;
    // Under another name until it is known to be whole: a torn file is never taken for one.
    let part = Part::make(path)?;
    let written = receive(&mut pieces, &part, timeout).await;
    let trailer = written.and_then(|()| part.check())?;
    part.keep(path)?;
    let statement = &trailer.statement;
    if out.is_json() {
        return out.json(&json::Exported {
            file: path.display().to_string(),
            cluster_id: statement.cluster_id.clone(),
            first: statement.first,
            last: statement.last,
            rows: statement.rows,
            head: dovetail_routing::Digest(statement.head).to_string(),
            exporter: statement.exporter.clone(),
        });
    }
    out.line(&printable(&format!(
        "{}: {} rows, {} to {}, signed by {}",
        path.display(),
        statement.rows,
        statement.first,
        statement.last,
        statement.exporter
    )))
}

async fn receive(
    pieces: &mut Streaming<pb::ExportPiece>,
    part: &Part,
    timeout: Duration,
) -> Result<(), Failure> {
    let file = File::create(&part.0).map_err(|error| part.failed("write", &error))?;
    let mut file = BufWriter::new(file);
    while let Some(piece) = next(pieces, Some(timeout), "the export").await? {
        file.write_all(&piece.data).map_err(|error| part.failed("write", &error))?;
    }
    let file = file.into_inner().map_err(|error| part.failed("write", error.error()))?;
    file.sync_all().map_err(|error| part.failed("write", &error))
}

/// The next message of a stream; `what` broke off when there is none in time.
async fn next<T>(
    stream: &mut Streaming<T>,
    timeout: Option<Duration>,
    what: &str,
) -> Result<Option<T>, Failure> {
    let answer = match timeout {
        None => stream.message().await,
        Some(timeout) => tokio::time::timeout(timeout, stream.message()).await.map_err(|_| {
            Failure::Unreachable(format!("{what} broke off: nothing within {timeout:?}"))
        })?,
    };
    answer.map_err(|status| broke_off(&status, what))
}

fn broke_off(status: &Status, what: &str) -> Failure {
    let reason = dovetail_process::grpc::describe(status);
    match Meaning::of(status) {
        Meaning::Refused => Failure::Refused(reason),
        _ => Failure::Unreachable(format!("{what} broke off: {reason}")),
    }
}

/// A file that is still being written; removed unless it is kept.
struct Part(PathBuf);

impl Part {
    fn make(path: &Path) -> Result<Self, Failure> {
        let Some(name) = path.file_name() else {
            return Err(Failure::Usage(format!("{}: is no name of a file", path.display())));
        };
        let mut name = name.to_owned();
        name.push(".part");
        Ok(Self(path.with_file_name(name)))
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> Failure {
        Failure::Usage(format!("{what} {}: {error}", self.0.display()))
    }

    /// Reads it to its end: whatever fits was received whole.
    fn check(&self) -> Result<Trailer, Failure> {
        let file = File::open(&self.0).map_err(|error| self.failed("read", &error))?;
        let broken = |error: dovetail_ledger::ExportError| {
            Failure::Refused(format!(
                "what was received does not hold together: {}",
                dovetail_process::chain(&error)
            ))
        };
        let mut reader = ExportReader::open(BufReader::new(file)).map_err(broken)?;
        while reader.next_row().map_err(broken)?.is_some() {}
        reader.trailer().cloned().ok_or_else(|| Failure::Refused("it has no end".to_owned()))
    }

    fn keep(self, path: &Path) -> Result<(), Failure> {
        fs::rename(&self.0, path).map_err(|error| self.failed("rename", &error))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already if it was kept.
        let _ = fs::remove_file(&self.0);
    }
}

pub(crate) async fn follow(core: &Core, out: &Out, from: u64) -> Result<ExitCode, Failure> {
    let request = pb::FollowLogRequest { from };
    let mut entries =
        core.ask(|mut client| async move { client.follow_log(request).await }).await?;
    while let Some(entry) = next(&mut entries, None, "the log").await? {
        if out.is_json() {
            out.json(&json::LogEntry::from(entry))?;
        } else {
            out.line(&printable(&log::line(&entry)))?;
        }
    }
    Err(Failure::Unreachable("the log broke off: the member that told it has ended".to_owned()))
}
