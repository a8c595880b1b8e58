//! The access log: one line per request, written by a thread of its own.
//!
//! A request only puts a line into a bounded queue. When the disk or the reader of
//! standard output is too slow, lines are dropped and counted; requests never wait.
//!
//! Where lines go and how they look is the configuration's to say (`AccessLogPath`,
//! `MainLogFormat`), unless `--access-log` says where: then that counts.

mod format;
mod json;

pub use format::{Captured, LineFormat};

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use dovetail_routing::Revision;
use dovetail_routing::snapshot::RouteService;
use http::{HeaderValue, Method, Uri, Version};
use metrics::Counter;

use crate::conn::ClientTls;
use crate::table::{Candidate, RouteEntry};

/// Lines that may wait.
const QUEUE_LINES: usize = 16_384;
/// How long lines are gathered into one write while there are many.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes after which a batch is written at once.
const BATCH_BYTES: usize = 256 * 1_024;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Where the configuration says: standard output unless it says otherwise.
    Configured,
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
    /// Without its port where a trusted proxy names it.
    pub client: SocketAddr,
    pub method: Method,
    pub host: Option<HeaderValue>,
    pub uri: Uri,
    pub version: Version,
    pub https: bool,
    pub tls: Option<ClientTls>,
    pub status: u16,
    pub bytes: u64,
    pub duration: Duration,
    /// Until the upstream's head; `None` when none answered.
    pub until_head: Option<Duration>,
    /// The status that the upstream answered with.
    pub upstream_status: Option<u16>,
    pub entry: Option<Arc<RouteEntry>>,
    pub candidate: Option<usize>,
    pub attempts: u32,
    pub revision: Option<Revision>,
    pub request_id: Option<HeaderValue>,
    pub error: Option<&'static str>,
    pub detail: Option<String>,
    /// How it is printed; `None` as JSON.
    pub format: Option<Arc<LineFormat>>,
    /// What the format wants to know of the headers.
    pub captured: Option<Box<Captured>>,
}

impl Line {
    /// The client's address, with its port if that is known.
    fn client_text(&self) -> String {
        match self.client.port() {
            0 => self.client.ip().to_string(),
            _ => self.client.to_string(),
        }
    }

    /// The last upstream that was tried.
    fn candidate(&self) -> Option<&Candidate> {
        self.entry.as_ref()?.candidates.get(self.candidate?)
    }

    /// The service of that upstream.
    fn service(&self) -> Option<&RouteService> {
        self.entry.as_ref()?.route.services.get(self.candidate()?.service)
    }
}

/// What goes through the queue.
enum Message {
    Line(Box<Line>),
    /// From here on lines go there.
    Turn(Output),
    End,
}

type Output = Box<dyn Write + Send>;

/// Where requests leave their lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: SyncSender<Message>,
    /// Whether anybody reads what is written.
    wanted: AtomicBool,
    /// Where lines go now. Held by the one writer while it turns.
    target: Mutex<AccessLogTarget>,
    /// Whether the configuration may say where.
    configured: bool,
    dropped: Counter,
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writer(SyncSender<Message>, JoinHandle<()>);

impl AccessLog {
    /// Opens the log and starts its thread. `proxy` is what this one is called.
    pub fn open(target: &AccessLogTarget, proxy: &str) -> Result<(Self, Writer), AccessLogError> {
        let configured = *target == AccessLogTarget::Configured;
        let target = if configured { AccessLogTarget::Stdout } else { target.clone() };
        let output = output(&target)?;
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let failed = metrics::counter!("dovetail_proxy_access_log_write_errors_total");
        let proxy = proxy.to_owned();
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&lines, output, &proxy, &failed))
            .map_err(|error| AccessLogError { path: "(its thread)".into(), error })?;
        let inner = Inner {
            queue: queue.clone(),
            wanted: (target != AccessLogTarget::None).into(),
            target: Mutex::new(target),
            configured,
            dropped: metrics::counter!("dovetail_proxy_access_log_lines_dropped_total"),
        };
        Ok((Self(Arc::new(inner)), Writer(queue, thread)))
    }

    /// Turns to where the configuration says (`AccessLogPath`), unless a flag said it.
    /// On an error lines go on where they went. Opens files: not for threads that serve.
    pub fn configure(&self, path: Option<&str>) -> Result<(), AccessLogError> {
        if !self.0.configured {
            return Ok(());
        }
        let wanted = match path {
            None => AccessLogTarget::Stdout,
            Some(path) => path.parse().unwrap_or(AccessLogTarget::Stdout),
        };
        let mut target = self.0.target.lock().unwrap_or_else(PoisonError::into_inner);
        if *target == wanted {
            return Ok(());
        }
        if let AccessLogTarget::File(path) = &wanted
            && path.is_relative()
        {
            // Relative to what, nobody could say who reads the configuration.
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no absolute path");
            return Err(AccessLogError { path: path.clone(), error });
        }
        let output = output(&wanted)?;
        // Lines left so far are still written where they belonged.
        if self.0.queue.send(Message::Turn(output)).is_ok() {
            self.0.wanted.store(wanted != AccessLogTarget::None, Ordering::Relaxed);
            *target = wanted;
        }
        Ok(())
    }

    /// Whether anybody reads what is written.
    pub fn wants_lines(&self) -> bool {
        self.0.wanted.load(Ordering::Relaxed)
    }

    /// Leaves a line; never waits.
    pub fn write(&self, line: Line) {
        match self.0.queue.try_send(Message::Line(Box::new(line))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.0.dropped.increment(1);
            }
        }
    }
}

impl Writer {
    /// Waits until the lines left so far are written; later ones are dropped.
    pub fn finish(self) {
        // Both fail only if it has ended by itself.
        let _ = self.0.send(Message::End);
        let _ = self.1.join();
    }
}

fn output(target: &AccessLogTarget) -> Result<Output, AccessLogError> {
    Ok(match target {
        AccessLogTarget::None => Box::new(io::sink()),
        AccessLogTarget::Stdout | AccessLogTarget::Configured => Box::new(io::stdout()),
        AccessLogTarget::File(path) => Box::new(open(path)?),
    })
}

fn open(path: &PathBuf) -> Result<File, AccessLogError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| AccessLogError { path: path.clone(), error })
}

fn write_lines(lines: &Receiver<Message>, mut output: Output, proxy: &str, failed: &Counter) {
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
        let (mut count, mut ended, mut turn) = (0, false, None);
        while let Some(message) = next {
            match message {
                Message::Line(line) => match &line.format {
                    Some(format) => format.append(&mut batch, &line, proxy),
                    None => json::append(&mut batch, &line),
                },
                Message::Turn(output) => turn = Some(output),
                Message::End => ended = true,
            }
            count += 1;
            let full = ended || turn.is_some() || batch.len() >= BATCH_BYTES;
            next = if full { None } else { lines.try_recv().ok() };
        }
        busy = count > 2;
        if output.write_all(&batch).and_then(|()| output.flush()).is_err() {
            failed.increment(count);
        }
        batch.clear();
        if let Some(turned) = turn {
            output = turned;
        }
        if ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
