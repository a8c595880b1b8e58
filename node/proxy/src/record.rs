//! What is known of a request in the end: for the access log and the metrics.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, request};

use crate::access_log::{Captured, Line};
use crate::body::Broken;
use crate::conn::ClientTls;
use crate::respond::ProxyError;
use crate::stream::Wire;
use crate::table::{RouteEntry, RouteTable};
use crate::worker::Worker;

/// Status of a request whose client left before it was answered, as NGINX logs it.
const CLIENT_CLOSED: u16 = 499;

/// A request, from its head to the end of its response. Dropped, it is logged and counted.
pub struct Record {
    worker: Rc<Worker>,
    wire: Rc<Wire>,
    pub started: Instant,
    /// Without its port where a trusted proxy names it.
    pub client: SocketAddr,
    method: Method,
    uri: Uri,
    pub host: Option<HeaderValue>,
    pub request_id: Option<HeaderValue>,
    /// Whether its client reads what the proxy itself says as gRPC.
    pub grpc: bool,
    pub table: Option<Arc<RouteTable>>,
    pub entry: Option<Arc<RouteEntry>>,
    /// The position of the last upstream tried.
    pub candidate: Option<usize>,
    pub attempts: u32,
    pub version: Version,
    pub https: bool,
    pub tls: Option<ClientTls>,
    /// Until the upstream's head; `None` when none answered.
    pub until_head: Option<Duration>,
    pub upstream_status: Option<u16>,
    /// What the access log wants to know of the headers.
    pub captured: Option<Box<Captured>>,
    pub status: u16,
    pub bytes: u64,
    pub error: Option<&'static str>,
    pub detail: Option<String>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} {} {})", self.method, self.uri, self.status)
    }
}

impl Record {
    /// A request begins.
    pub fn new(
        worker: &Rc<Worker>,
        wire: &Rc<Wire>,
        client: SocketAddr,
        method: Method,
        uri: Uri,
    ) -> Self {
        wire.begin();
        Self {
            worker: Rc::clone(worker),
            wire: Rc::clone(wire),
            started: Instant::now(),
            client,
            method,
            uri,
            host: None,
            request_id: None,
            grpc: false,
            table: None,
            entry: None,
            candidate: None,
            attempts: 0,
            version: Version::default(),
            https: false,
            tls: None,
            until_head: None,
            upstream_status: None,
            captured: None,
            status: CLIENT_CLOSED,
            bytes: 0,
            error: None,
            detail: None,
        }
    }

    /// The thread that serves it.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Its answer did not come whole.
    pub fn broke_off(&mut self, broken: &Broken) {
        self.error = Some(match broken {
            Broken::Off(_) => "upstream_broke_off",
            Broken::Reset(_) => "upstream_reset",
            Broken::Silent => "response_timeout",
        });
        // A reset is the application's word, as a status is.
        if !matches!(broken, Broken::Reset(_))
            && let Some((entry, position)) = self.entry.as_ref().zip(self.candidate)
        {
            if let Some(counters) = entry.counters(position) {
                counters.broke_off();
            }
            entry.note_failure(position, &self.worker, matches!(broken, Broken::Silent));
        }
    }

    /// Its head and the table are known: notes what the access log wants of it.
    pub fn begin(
        &mut self,
        table: &Arc<RouteTable>,
        parts: &request::Parts,
        tls: Option<&ClientTls>,
    ) {
        self.version = parts.version;
        self.table = Some(Arc::clone(table));
        if self.worker.shared.access.wants_lines() {
            self.tls = tls.cloned();
            self.https = tls.is_some();
            let format = table.options.access_format.as_deref();
            self.captured = format.and_then(|format| format.capture(&parts.headers));
        }
    }

    /// The head of its answer is known.
    pub fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = status.as_u16();
        let table = self.table.as_deref();
        let format = table.and_then(|table| table.options.access_format.as_deref());
        if let Some((format, captured)) = format.zip(self.captured.as_deref_mut()) {
            format.capture_response(captured, headers);
        }
    }

    /// It failed, and is answered by the proxy itself.
    pub fn fail(&mut self, error: &ProxyError) {
        self.status = error.status().as_u16();
        self.error = Some(error.kind());
        if self.worker.shared.access.wants_lines() {
            self.detail = Some(dovetail_process::chain(error));
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.wire.end();
        let elapsed = self.started.elapsed();
        if self.status == CLIENT_CLOSED && self.error.is_none() {
            self.error = Some("client_gone");
        }
        let cluster = self.table.as_ref().map(|table| &table.snapshot().service_cluster);
        self.worker.telemetry.request(cluster, self.status, self.error, elapsed);
        let access = &self.worker.shared.access;
        if access.wants_lines() {
            // What was refused before its table was known looks like all others.
            let table = self.table.take().or_else(|| self.worker.shared.table.pin());
            access.write(Line {
                time: SystemTime::now(),
                client: self.client,
                method: std::mem::take(&mut self.method),
                host: self.host.take(),
                uri: std::mem::take(&mut self.uri),
                version: self.version,
                https: self.https,
                tls: self.tls.take(),
                until_head: self.until_head,
                upstream_status: self.upstream_status,
                captured: self.captured.take(),
                format: table.as_ref().and_then(|table| table.options.access_format.clone()),
                status: self.status,
                bytes: self.bytes,
                duration: elapsed,
                entry: self.entry.take(),
                candidate: self.candidate,
                attempts: self.attempts,
                revision: table.as_ref().map(|table| table.revision()),
                request_id: self.request_id.take(),
                error: self.error,
                detail: self.detail.take(),
            });
        }
    }
}
