//! The access log: one JSON object per request, written by a thread of its own.
//!
//! A request only puts a line into a bounded queue. When the disk or the reader of
//! standard output is too slow, lines are dropped and counted; requests never wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use dovetail_routing::Revision;
use http::{HeaderValue, Method, Uri};
use metrics::Counter;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::table::RouteEntry;

/// Lines that may wait.
const QUEUE_LINES: usize = 16_384;
/// How long lines are gathered into one write while there are many.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes after which a batch is written at once.
const BATCH_BYTES: usize = 256 * 1_024;
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    Stdout,
    None,
    File(PathBuf),
}

impl FromStr for AccessLogTarget {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        match given {
            "" => Err("is empty: it is stdout, none or a file".to_owned()),
            "stdout" | "/dev/stdout" => Ok(Self::Stdout),
            "none" | "off" => Ok(Self::None),
            file => Ok(Self::File(file.into())),
        }
    }
}

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("open access log {}", path.display())]
pub struct AccessLogError {
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// What is written of one request.
#[derive(Debug)]
pub struct Line {
    pub time: SystemTime,
    pub client: SocketAddr,
    pub method: Method,
    pub host: Option<HeaderValue>,
    pub uri: Uri,
    pub status: u16,
    pub bytes: u64,
    pub duration: Duration,
    pub entry: Option<Arc<RouteEntry>>,
    pub candidate: Option<usize>,
    pub attempts: u32,
    pub revision: Option<Revision>,
    pub request_id: Option<HeaderValue>,
    pub error: Option<&'static str>,
    pub detail: Option<String>,
}

/// What goes through the queue.
#[derive(Debug)]
enum Message {
    Line(Box<Line>),
    End,
}

/// Where requests leave their lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: Option<SyncSender<Message>>,
    dropped: Counter,
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writer(Option<(SyncSender<Message>, JoinHandle<()>)>);

impl AccessLog {
    /// Opens the log and starts its thread.
    pub fn open(target: &AccessLogTarget) -> Result<(Self, Writer), AccessLogError> {
        let dropped = metrics::counter!("dovetail_proxy_access_log_lines_dropped_total");
        let output: Box<dyn Write + Send> = match target {
            AccessLogTarget::None => return Ok((Self { queue: None, dropped }, Writer(None))),
            AccessLogTarget::Stdout => Box::new(io::stdout()),
            AccessLogTarget::File(path) => Box::new(open(path)?),
        };
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let failed = metrics::counter!("dovetail_proxy_access_log_write_errors_total");
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&lines, output, &failed))
            .map_err(|error| AccessLogError { path: "(its thread)".into(), error })?;
        Ok((Self { queue: Some(queue.clone()), dropped }, Writer(Some((queue, thread)))))
    }

    /// Whether anybody reads what is written.
    pub fn wants_lines(&self) -> bool {
        self.queue.is_some()
    }

    /// Leaves a line; never waits.
    pub fn write(&self, line: Line) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(Message::Line(Box::new(line))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.increment(1),
        }
    }
}

impl Writer {
    /// Waits until the lines left so far are written; later ones are dropped.
    pub fn finish(self) {
        if let Some((queue, thread)) = self.0 {
            // Both fail only if it has ended by itself.
            let _ = queue.send(Message::End);
            let _ = thread.join();
        }
    }
}

fn open(path: &PathBuf) -> Result<File, AccessLogError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| AccessLogError { path: path.clone(), error })
}

fn write_lines(lines: &Receiver<Message>, mut output: Box<dyn Write + Send>, failed: &Counter) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    let mut busy = false;
    loop {
        // While there are many, the queue is looked at in intervals: nobody who
        // leaves a line then has to wake this thread.
        if busy {
            std::thread::park_timeout(GATHER);
        }
        let Ok(first) = lines.recv() else { return };
        let mut next = Some(first);
        let (mut count, mut ended) = (0, false);
        while let Some(message) = next {
            match message {
                Message::Line(line) => append(&mut batch, &line),
                Message::End => ended = true,
            }
            count += 1;
            let full = ended || batch.len() >= BATCH_BYTES;
            next = if full { None } else { lines.try_recv().ok() };
        }
        busy = count > 2;
        if output.write_all(&batch).and_then(|()| output.flush()).is_err() {
            failed.increment(count);
        }
        batch.clear();
        if ended {
            return;
        }
    }
}

/// A line as it is printed. Fields may be added, none renamed.
#[derive(Debug, Serialize)]
struct Printed<'l> {
    time: &'l str,
    client: SocketAddr,
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

fn append(batch: &mut Vec<u8>, line: &Line) {
    let time = OffsetDateTime::from(line.time).format(TIME).unwrap_or_default();
    let entry = line.entry.as_deref();
    let candidate = entry.zip(line.candidate).and_then(|(e, at)| e.candidates.get(at));
    let service = entry.zip(candidate).and_then(|(e, c)| e.route.services.get(c.service));
    let printed = Printed {
        time: &time,
        client: line.client,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::entry;

    #[test]
    fn a_line_names_route_service_task_and_upstream() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let (log, writer) = AccessLog::open(&AccessLogTarget::File(path.clone())).expect("a log");
        log.write(Line {
            time: SystemTime::UNIX_EPOCH,
            client: "10.0.0.9:4711".parse().expect("an address"),
            method: Method::GET,
            host: Some(HeaderValue::from_static("shop.example")),
            uri: "/a?b=\"c".parse().unwrap_or_default(),
            status: 200,
            bytes: 12,
            duration: Duration::from_micros(1_234),
            entry: Some(Arc::new(entry(&[(10_000, "aa")]))),
            candidate: Some(1),
            attempts: 2,
            revision: Some(Revision(42)),
            request_id: Some(HeaderValue::from_static("abc")),
            error: None,
            detail: None,
        });
        drop(log);
        writer.finish();
        let text = std::fs::read_to_string(path).expect("a log");
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("JSON");
        assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(line["route"], "shop.example/");
        assert_eq!(line["service"], "service-0");
        assert_eq!(line["task"], "task-1002");
        assert_eq!(line["upstream"], "127.0.0.1:1002");
        assert_eq!(line["duration_ms"], 1.234);
        assert_eq!(line["revision"], 42);
    }

    #[test]
    fn targets_are_words_or_a_file() {
        assert_eq!("stdout".parse(), Ok(AccessLogTarget::Stdout));
        assert_eq!("none".parse(), Ok(AccessLogTarget::None));
        assert_eq!("/var/log/a".parse(), Ok(AccessLogTarget::File("/var/log/a".into())));
        assert!("".parse::<AccessLogTarget>().is_err());
    }
}
