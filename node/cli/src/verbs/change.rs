//! Verbs that change something.
//!
//! How one is added: its arguments and its `run` stand in a file of its own (see
//! `canary.rs`), with `#[command(flatten)] change: ChangeArgs` among the arguments, and
//! [`send`] does the rest: the request id, the repetition over members after a lost
//! answer, the dry run, the exit code. `args.rs` and `verbs.rs` only name the verb.

use std::future::Future;
use std::process::ExitCode;

use dovetail_process::tls::provider;
use dovetail_proto::v1 as pb;
use tonic::{Response, Status};

use super::plan;
use crate::core::{Client, Core};
use crate::failure::Failure;
use crate::json;
use crate::out::Out;

/// What every verb takes that changes something.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ChangeArgs {
    /// Makes a repetition harmless; made up unless given
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Tell what would happen, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Orders a change and prints the answer. `call` makes the request with this request id and
/// this `dry_run`; it may be made several times.
pub(crate) async fn send<F>(
    core: &Core,
    out: &Out,
    args: &ChangeArgs,
    call: impl Fn(Client, String, bool) -> F,
) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<Response<pb::ChangeResponse>, Status>>,
{
    let request_id = match &args.request_id {
        Some(id) => id.clone(),
        None => new_request_id()?,
    };
    let change = core
        .order(|client| call(client, request_id.clone(), args.dry_run))
        .await
        .map_err(|failure| with_repetition(failure, &request_id, args.dry_run))?;
    print(out, change)
}

pub(crate) async fn annotate(
    core: &Core,
    out: &Out,
    text: String,
    args: &ChangeArgs,
) -> Result<ExitCode, Failure> {
    send(core, out, args, |mut client, request_id, dry_run| {
        let request = pb::AnnotateRequest { request_id, text: text.clone(), dry_run };
        async move { client.annotate(request).await }
    })
    .await
}

fn print(out: &Out, change: pb::ChangeResponse) -> Result<ExitCode, Failure> {
    if out.is_json() {
        return out.json(&json::Change::from(change));
    }
    let again = if change.first_answer { ", as answered before" } else { "" };
    if change.dry_run {
        plan::print_changes(out, &change.routes)?;
        return out.line(&format!(
            "would be {} at index {} or later{again}; a dry run, nothing was written",
            change.applied, change.index
        ));
    }
    out.line(&format!(
        "{} at index {}, revision {}{again}",
        change.applied, change.index, change.revision
    ))
}

/// Says how to learn an unknown outcome: the same request id is answered, not repeated.
fn with_repetition(failure: Failure, request_id: &str, dry_run: bool) -> Failure {
    match failure {
        Failure::Unknown(reason) if dry_run => {
            Failure::Unreachable(format!("{reason}; a dry run, nothing was written"))
        }
        Failure::Unknown(reason) => Failure::Unknown(format!(
            "{reason}; the same command with --request-id {request_id} tells, and is not done twice"
        )),
        failure => failure,
    }
}

/// 128 random bits.
fn new_request_id() -> Result<String, Failure> {
    let mut bits = [0; 16];
    provider().secure_random.fill(&mut bits).map_err(|_| {
        Failure::Refused("this machine has no randomness; give --request-id".into())
    })?;
    Ok(bits.iter().map(|byte| format!("{byte:02x}")).collect())
}
