//! A line as a JSON object: what is written unless a format is configured.

use std::net::SocketAddr;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::Line;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A line as it is printed. Fields may be added, none renamed.
#[derive(Debug, Serialize)]
struct Printed<'l> {
    time: &'l str,
    client: String,
    method: &'l str,
    host: Option<&'l str>,
    path: &'l str,
    status: u16,
    bytes: u64,
    duration_ms: f64,
    route: Option<String>,
    service: Option<&'l str>,
    task: Option<&'l str>,
    upstream: Option<SocketAddr>,
    attempts: u32,
    revision: Option<u64>,
    request_id: Option<&'l str>,
    error: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'l str>,
}

pub(super) fn append(batch: &mut Vec<u8>, line: &Line) {
    let time = OffsetDateTime::from(line.time).format(TIME).unwrap_or_default();
    let entry = line.entry.as_deref();
    let (candidate, service) = (line.candidate(), line.service());
    let printed = Printed {
        time: &time,
        client: line.client_text(),
        method: line.method.as_str(),
        host: line.host.as_ref().and_then(|host| host.to_str().ok()),
        path: line.uri.path_and_query().map_or("", |path| path.as_str()),
        status: line.status,
        bytes: line.bytes,
        duration_ms: (line.duration.as_secs_f64() * 1e6).round() / 1e3,
        route: entry.map(|entry| format!("{}{}", entry.route.host, entry.route.path)),
        service: service.map(|service| &*service.name),
        task: candidate.and_then(|c| c.upstream.task.as_ref()).map(|task| task.as_str()),
        upstream: candidate.map(|candidate| candidate.upstream.address),
        attempts: line.attempts,
        revision: line.revision.map(|revision| revision.0),
        request_id: line.request_id.as_ref().and_then(|id| id.to_str().ok()),
        error: line.error,
        detail: line.detail.as_deref(),
    };
    let start = batch.len();
    if serde_json::to_writer(&mut *batch, &printed).is_err() {
        batch.truncate(start);
        return;
    }
    batch.push(b'\n');
}
