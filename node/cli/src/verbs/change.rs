//! Verbs that change something.

use std::process::ExitCode;

use dovetail_process::tls::provider;
use dovetail_proto::v1 as pb;

use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::Out;

pub(crate) async fn annotate(
    core: &Core,
    out: &Out,
    text: String,
    request_id: Option<String>,
) -> Result<ExitCode, Failure> {
    let request_id = match request_id {
        Some(id) => id,
        None => new_request_id()?,
    };
    let request = pb::AnnotateRequest { request_id: request_id.clone(), text };
    let change = core
        .order(|mut client| {
            let request = request.clone();
            async move { client.annotate(request).await }
        })
        .await
        .map_err(|failure| with_repetition(failure, &request_id))?;
    print(out, change)
}

fn print(out: &Out, change: pb::ChangeResponse) -> Result<ExitCode, Failure> {
    if out.is_json() {
        return out.json(&json::Change::from(change));
    }
    let again = if change.first_answer { ", as answered before" } else { "" };
    out.line(&format!(
        "{} at index {}, revision {}{again}",
        change.applied, change.index, change.revision
    ))
}

/// Says how to learn an unknown outcome: the same request id is answered, not repeated.
fn with_repetition(failure: Failure, request_id: &str) -> Failure {
    match failure {
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
