//! What the tests share: routes, upstreams, a proxy, and clients that say exactly what they are told.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod frames;
pub mod http2;
pub mod process;
pub mod tls;
pub mod tls_app;
pub mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dovetail_proxy::access_log::AccessLogTarget;
use dovetail_proxy::secrets::Secrets;
use dovetail_proxy::server::{Config, Running};
use dovetail_proxy::stream::BODY_RATE_WINDOW;
use dovetail_proxy::worker::Limits;
use dovetail_routing::entry::ProxyOptions;
use dovetail_routing::snapshot::{
    Dial, Revision, Route, RouteHost, RouteOptions, RouteService, Snapshot, Tls, Upstream,
    UpstreamState,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// One service of a route: its weight, and its upstreams.
pub struct Service<'a> {
    pub weight: u16,
    pub active: &'a [SocketAddr],
    pub draining: &'a [SocketAddr],
}

/// A route of one service with these active upstreams.
pub fn route(host: &str, path: &str, active: &[SocketAddr]) -> Route {
    route_of(host, path, &[Service { weight: 10_000, active, draining: &[] }])
}

/// A route of several services.
pub fn route_of(host: &str, path: &str, services: &[Service<'_>]) -> Route {
    let services = services.iter().enumerate().map(|(at, service)| {
        let upstream = |state| {
            move |address: &SocketAddr| Upstream {
                address: *address,
                state,
                task: Some(format!("task-{}", address.port()).as_str().into()),
                node: None,
            }
        };
        let active = service.active.iter().map(upstream(UpstreamState::Active));
        let draining = service.draining.iter().map(upstream(UpstreamState::Draining));
        let mut upstreams: Vec<_> = active.chain(draining).collect();
        upstreams.sort_by(|a, b| (a.address, &a.task).cmp(&(b.address, &b.task)));
        RouteService {
            id: format!("service-{at}").as_str().into(),
            name: format!("service-{at}").into(),
            weight: service.weight,
            dial: Dial::default(),
            upstreams,
        }
    });
    Route {
        host: match host {
            "*" => RouteHost::Default,
            host => host.parse().expect("a host"),
        },
        path: path.parse().expect("a path"),
        tls: Tls::None,
        options: RouteOptions::default(),
        services: services.collect(),
    }
}

/// A snapshot of these routes.
pub fn snapshot(revision: u64, mut routes: Vec<Route>) -> Arc<Snapshot> {
    routes.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
    Arc::new(Snapshot { revision: Revision(revision), routes, ..Snapshot::default() })
}

/// A snapshot with options.
pub fn snapshot_with(revision: u64, routes: Vec<Route>, options: ProxyOptions) -> Arc<Snapshot> {
    let mut snapshot = Arc::unwrap_or_clone(snapshot(revision, routes));
    snapshot.options = options;
    Arc::new(snapshot)
}

/// The real forwarding code in this process, on a free port.
pub struct Proxy {
    pub address: SocketAddr,
    /// Where it takes TLS; its own address unless it was told to.
    pub https: SocketAddr,
    running: Option<Running>,
}

impl Proxy {
    pub fn start(snapshot: &Arc<Snapshot>) -> Self {
        Self::start_with(snapshot, |_| {})
    }

    pub fn start_with(snapshot: &Arc<Snapshot>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            http: ([127, 0, 0, 1], 0).into(),
            https: None,
            threads: 1,
            name: "proxy-1".into(),
            access_log: AccessLogTarget::None,
            secrets: Secrets::default(),
            limits: Limits {
                connections_max: 1_000,
                connections_per_client_max: 0,
                head_timeout: Duration::from_secs(10),
                client_timeout: Duration::from_secs(60),
                body_rate_window: BODY_RATE_WINDOW,
            },
        };
        change(&mut config);
        let server = config.build().expect("a free port");
        server.shared().put_in_force(snapshot).expect("a table");
        let address = server.address();
        let https = server.https_address().unwrap_or(address);
        Self { address, https, running: Some(server.start().expect("threads")) }
    }

    pub fn swap(&self, snapshot: &Arc<Snapshot>) {
        let running = self.running.as_ref().expect("it runs");
        running.shared().put_in_force(snapshot).expect("a newer table");
    }

    /// What an operator should see of it.
    pub fn problems(&self) -> &dovetail_proxy::problems::Problems {
        &self.running.as_ref().expect("it runs").shared().problems
    }

    pub async fn drain(mut self, grace: Duration) -> usize {
        self.running.take().expect("it runs").drain(grace).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.shared().drain.cancel();
            running.shared().cut.cancel();
        }
    }
}

/// Sends `bytes`, then reads until the other side ends or `DEADLINE`.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    // What the proxy refuses it may close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "still open after {:?}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// A connection that sends requests and reads their answers, one after the other.
pub struct RawClient {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, taken apart.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        values.next().map(|(_, value)| value.as_str())
    }
}

impl RawClient {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1_024];
        let read = tokio::time::timeout(DEADLINE, self.stream.read(&mut chunk)).await;
        let count = read.expect("an answer in time").unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..count]);
        count > 0
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).expect("text"));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> String {
        while self.buffer.len() < count {
            assert!(self.fill().await, "the body ended early");
        }
        String::from_utf8_lossy(&self.buffer.drain(..count).collect::<Vec<_>>()).into_owned()
    }

    /// The next answer; `None` if the connection ended.
    pub async fn answer(&mut self, to_head: bool) -> Option<Answer> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).expect(&status);
        let mut headers = Vec::new();
        loop {
            let line = self.line().await.expect("a whole head");
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        if to_head || matches!(status, 100..=199 | 204 | 304) {
            return Some(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a number");
            answer.body = self.exactly(length).await;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line().await.expect("a chunk");
                let size = usize::from_str_radix(&size, 16).expect("a size");
                if size == 0 {
                    break;
                }
                answer.body += &self.exactly(size).await;
                assert_eq!(self.line().await.as_deref(), Some(""));
            }
            while self.line().await.is_some_and(|line| !line.is_empty()) {}
        } else {
            while self.fill().await {}
            answer.body = String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned();
        }
        Some(answer)
    }

    /// Sends a request without a body and reads the answer.
    pub async fn get(&mut self, host: &str, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        self.answer(false).await.expect("an answer")
    }

    /// Some bytes, whatever they mean.
    pub async fn some(&mut self) -> String {
        if self.buffer.is_empty() {
            assert!(self.fill().await, "the connection ended");
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// Whether the other side ended the connection.
    pub async fn is_at_end(&mut self) -> bool {
        !self.fill().await && self.buffer.is_empty()
    }
}

/// One request on a connection of its own.
pub async fn get(address: SocketAddr, host: &str, target: &str) -> Answer {
    RawClient::connect(address).await.get(host, target).await
}

/// Waits until `holds`, or fails with `what`.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {DEADLINE:?}: {what}");
}
