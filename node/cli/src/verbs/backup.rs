//! `backup`: everything that the quorum decided, as a file that is whole or not there.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use dovetail_proto::v1 as pb;
use pb::backup_part::Part;
use serde::Serialize;
use tonic::Streaming;

use crate::core::Core;
use crate::failure::{Failure, Meaning};
use crate::out::Out;

/// How long the leader may take to write down its state.
const MADE_WITHIN: Duration = Duration::from_secs(60);

/// What was saved.
#[derive(Debug, Serialize)]
struct Saved {
    file: String,
    bytes: u64,
    cluster_id: String,
    index: u64,
}

pub(crate) async fn run(
    core: &Core,
    out: &Out,
    path: &Path,
    timeout: Duration,
) -> Result<ExitCode, Failure> {
    let unwritten = |error: io::Error| Failure::Usage(format!("{}: {error}", path.display()));
    let mut file = File::options().write(true).create_new(true).open(path).map_err(unwritten)?;
    match save(core, &mut file, timeout.max(MADE_WITHIN), unwritten).await {
        Ok(header) => {
            let pb::BackupHeader { cluster_id, index, bytes, .. } = header;
            let saved = Saved { file: path.display().to_string(), bytes, cluster_id, index };
            if out.is_json() {
                return out.json(&saved);
            }
            let Saved { file, bytes, cluster_id, index } = saved;
            out.line(&format!(
                "{file}: quorum {cluster_id} up to index {index}, {bytes} bytes\n\
                 dovetaild restore {file} --new-cluster makes a new quorum of it"
            ))
        }
        Err(failure) => {
            drop(file);
            // Half a backup is worse than none; what cannot be removed is told by its size.
            let _ = std::fs::remove_file(path);
            Err(failure)
        }
    }
}

async fn save(
    core: &Core,
    file: &mut File,
    timeout: Duration,
    unwritten: impl Fn(io::Error) -> Failure,
) -> Result<pb::BackupHeader, Failure> {
    let request = pb::BackupRequest {};
    let mut parts = core.ask(|mut client| async move { client.backup(request).await }).await?;
    let broke_off = |reason: &str| Failure::Unreachable(format!("the backup broke off: {reason}"));
    let Some(Part::Header(header)) = next(&mut parts, timeout).await? else {
        return Err(broke_off("it has no header"));
    };
    let (mut bytes, mut hasher) = (0, blake3::Hasher::new());
    while let Some(part) = next(&mut parts, timeout).await? {
        let Part::Content(content) = part else { return Err(broke_off("a second header")) };
        bytes += content.len() as u64;
        hasher.update(&content);
        file.write_all(&content).map_err(&unwritten)?;
    }
    if bytes != header.bytes || hasher.finalize().as_bytes()[..] != header.hash {
        return Err(broke_off(&format!("{bytes} of {} bytes came", header.bytes)));
    }
    file.sync_all().map_err(&unwritten)?;
    Ok(header)
}

async fn next(
    parts: &mut Streaming<pb::BackupPart>,
    timeout: Duration,
) -> Result<Option<Part>, Failure> {
    let next = tokio::time::timeout(timeout, parts.message()).await.map_err(|_| {
        Failure::Unreachable(format!("the backup broke off: nothing within {timeout:?}"))
    })?;
    match next {
        Ok(part) => Ok(part.and_then(|part| part.part)),
        Err(status) => {
            let reason = dovetail_process::grpc::describe(&status);
            Err(match Meaning::of(&status) {
                Meaning::Refused => Failure::Refused(reason),
                _ => Failure::Unreachable(format!("the backup broke off: {reason}")),
            })
        }
    }
}
