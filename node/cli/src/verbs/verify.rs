//! `log verify`: a file, or the ledgers of all members.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use dovetail_ledger::{ExportError, Trailer, Until, Verified, verify};
use dovetail_process::tls::{Signed, verify_signed};
use dovetail_proto::v1 as pb;
use dovetail_routing::Digest;

use crate::args::Options;
use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable, short};
use crate::when::shown;

/// The least time for members to recompute every hash.
pub(crate) const RECOMPUTE: Duration = Duration::from_secs(600);

/// Checks a file; `ca` proves who signed it, a core that answers whether it is of it.
pub(crate) async fn file(
    options: &Options,
    out: &Out,
    path: &Path,
    ca: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let checked = {
        let path = path.to_owned();
        // Minutes for a long log: not on a thread that has to answer others.
        tokio::task::spawn_blocking(move || read(&path))
            .await
            .map_err(|error| Failure::Refused(error.to_string()))?
    };
    let verified = match checked? {
        Ok(verified) => verified,
        Err(error) => {
            let reason = dovetail_process::chain(&error);
            return failed(out, json::LogVerified::broken(error.index(), reason));
        }
    };
    let mut report = json::LogVerified::from(&verified);
    report.origin = match ca {
        Some(ca) => match signer(&verified.trailer, ca) {
            Ok(signer) => {
                report.signed_by = Some(signer.clone());
                format!("signed by {signer}")
            }
            Err(reason) => {
                report.reason = Some(reason);
                "forged or foreign".to_owned()
            }
        },
        None => of_quorum(options, &verified.trailer, &mut report).await?,
    };
    if let Some(divergence) = verified.replay.divergence() {
        report.reason = Some(format!(
            "replayed, the {} at {} is {}, and the quorum had {} (checkpoint {})",
            divergence.what,
            divergence.index,
            short(&divergence.found),
            short(&divergence.expected),
            divergence.checkpoint
        ));
        report.broken_index = Some(divergence.index);
    }
    if report.reason.is_some() {
        return failed(out, report);
    }
    report.ok = true;
    if out.is_json() {
        return out.json(&report);
    }
    out.line(&printable(&format!(
        "{}: {} rows, {} to {}, hold together; {} checkpoints agree{}",
        path.display(),
        report.rows,
        report.first,
        report.last,
        report.checkpoints,
        match report.unchecked {
            0 => String::new(),
            unchecked => format!(", {unchecked} could not be compared"),
        }
    )))?;
    out.line(&printable(&format!("origin: {}", report.origin)))
}

fn read(path: &Path) -> Result<Result<Verified, ExportError>, Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::Usage(format!("read {}: {error}", path.display())))?;
    Ok(verify(BufReader::new(file), Until::End))
}

/// Prints a check that failed; exit 1.
fn failed(out: &Out, report: json::LogVerified) -> Result<ExitCode, Failure> {
    if out.is_json() {
        out.json(&report)?;
    } else {
        let reason = report.reason.as_deref().unwrap_or("it does not hold together");
        let place = match report.broken_index {
            Some(index) => format!("broken at index {index}: "),
            None => "broken: ".to_owned(),
        };
        // The reason may name the place itself.
        let named = reason.contains("at index");
        out.line(&printable(&format!("{}{reason}", if named { "" } else { &place })))?;
    }
    Ok(ExitCode::from(1))
}

/// Who signed a file, as of the time that was signed.
fn signer(trailer: &Trailer, ca: &Path) -> Result<String, String> {
    let Some(signature) = &trailer.signature else {
        return Err("the file is not signed".to_owned());
    };
    let scheme = u16::try_from(signature.scheme)
        .map_err(|_| format!("signature scheme {} is none", signature.scheme))?;
    let signed =
        Signed { scheme, chain: signature.chain.clone(), signature: signature.signature.clone() };
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(trailer.statement.signed_at_ms);
    let signer = verify_signed(ca, &trailer.signed, &signed, at)?.to_string();
    if signer != trailer.statement.exporter {
        return Err(format!("{signer} signed what {} exported", trailer.statement.exporter));
    }
    Ok(signer)
}

/// What a running quorum says of the file's last row.
async fn of_quorum(
    options: &Options,
    trailer: &Trailer,
    report: &mut json::LogVerified,
) -> Result<String, Failure> {
    let unproven = |why: &str| Ok(format!("consistent, origin not proven: {why}"));
    if options.core.is_empty() || options.tls_dir.is_none() {
        return unproven("give --ca, or a core to compare it with");
    }
    let statement = &trailer.statement;
    let request = pb::VerifyLogRequest { index: Some(statement.last), recompute: false };
    let core = Core::new(options)?;
    let answer = match core.ask(|mut client| async move { client.verify_log(request).await }).await
    {
        Ok(answer) => answer,
        Err(failure) => return unproven(&failure.to_string()),
    };
    if answer.cluster_id != statement.cluster_id {
        return unproven(&format!(
            "it is of quorum {}, the core is {}",
            statement.cluster_id, answer.cluster_id
        ));
    }
    let ours = Digest(statement.head).to_string();
    let held: Vec<_> = answer.members.iter().filter(|member| !member.hash.is_empty()).collect();
    let alike = held.iter().filter(|member| member.hash == ours).count();
    if held.is_empty() {
        return unproven(&format!("no member holds row {} any more", statement.last));
    }
    if 2 * alike <= held.len() {
        report.reason = Some(format!(
            "the quorum has another row {}: the file is not what it wrote",
            statement.last
        ));
        report.broken_index = Some(statement.last);
        return Ok("not the quorum's".to_owned());
    }
    Ok(format!("as {alike} of {} members have it at {}", answer.members.len(), statement.last))
}

/// Compares the ledgers of all members, each recomputed by itself.
pub(crate) async fn core(core: &Core, out: &Out) -> Result<ExitCode, Failure> {
    let request = pb::VerifyLogRequest { index: None, recompute: true };
    let answer = core.ask(|mut client| async move { client.verify_log(request).await }).await?;
    let mut votes = BTreeMap::<&str, usize>::new();
    for member in answer.members.iter().filter(|member| !member.hash.is_empty()) {
        *votes.entry(&member.hash).or_default() += 1;
    }
    let common = votes.iter().max_by_key(|(_, count)| **count).map(|(hash, _)| (*hash).to_owned());
    let report = json::LedgersCompared::new(&answer, common.as_deref());
    let ok = report.ok;
    if out.is_json() {
        out.json(&report)?;
    } else {
        let headings = ["MEMBER", "FIRST", "SINCE", "LAST", "HASHED", "AT", "HASH", "VERDICT"];
        let mut table = out.table(&headings);
        for (member, verdict) in answer.members.iter().zip(report.verdicts()) {
            let tone = if verdict.starts_with("holds together") { Tone::Good } else { Tone::Bad };
            table.add_row([
                out.cell(member.id.to_string(), Tone::Plain),
                out.cell(member.first.to_string(), Tone::Plain),
                out.cell(shown(member.first_time_ms), Tone::Plain),
                out.cell(member.last.to_string(), Tone::Plain),
                out.cell(member.recomputed.to_string(), Tone::Plain),
                out.cell(answer.index.to_string(), Tone::Plain),
                out.cell(short(&member.hash), Tone::Plain),
                out.cell(verdict, tone),
            ]);
        }
        out.print(&table, "no members")?;
    }
    Ok(ExitCode::from(u8::from(!ok)))
}
