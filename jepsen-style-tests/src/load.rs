//! Open-loop load: requests go out at a constant rate, whatever the answers do.
//!
//! Latency counts from when a request was *due*, so a stall is seen by every
//! request that it held up. Every failure is kept with its reason and time.

mod report;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use report::{Failure, Report};

use crate::{NotReached, reached};

/// Requests in flight above which the generator, not the system, is the bottleneck.
const IN_FLIGHT_MAX: usize = 4_096;

/// What is asked, of whom, and how often.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// Asked in turn.
    pub proxies: Vec<SocketAddr>,
    pub host: String,
    pub path: String,
    /// Over all proxies together.
    pub requests_per_second: u32,
    /// From the moment when a request was due.
    pub timeout: Duration,
}

impl LoadConfig {
    /// 200 requests a second, 5 s for each.
    pub fn of(host: &str, proxies: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            proxies: proxies.into_iter().collect(),
            host: host.to_owned(),
            path: "/".to_owned(),
            requests_per_second: 200,
            timeout: Duration::from_secs(5),
        }
    }
}

/// Load that runs until it is finished.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    job: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    config: LoadConfig,
    started: Instant,
    pools: Vec<Mutex<Vec<Sender>>>,
    in_flight: AtomicUsize,
    report: Mutex<Report>,
}

type Sender = SendRequest<Empty<Bytes>>;

impl Load {
    /// Starts asking at once.
    pub fn start(config: LoadConfig) -> Self {
        let pools = config.proxies.iter().map(|_| Mutex::default()).collect();
        let started = Instant::now();
        let report = Mutex::new(Report::new(started));
        let shared =
            Arc::new(Shared { config, started, pools, in_flight: AtomicUsize::new(0), report });
        let (stop, stopped) = watch::channel(false);
        let job = tokio::spawn(run(shared.clone(), stopped));
        Self { shared, stop, job }
    }

    /// What was seen until now.
    pub fn so_far(&self) -> Report {
        lock(&self.shared.report).clone()
    }

    /// Waits until so many requests were sent.
    pub async fn until_sent(&self, requests: u64, deadline: Duration) -> Result<(), NotReached> {
        reached(deadline, || async {
            let sent = self.so_far().sent();
            if sent >= requests { Ok(()) } else { Err(format!("{sent} of {requests} requests")) }
        })
        .await
    }

    /// Sends no more, waits for the answers that are due, and reports.
    pub async fn finish(mut self) -> Report {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.job).await {
            lock(&self.shared.report).fail(Failure {
                at: self.shared.started.elapsed(),
                proxy: None,
                reason: format!("the generator broke: {error}"),
            });
        }
        self.so_far()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.job.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let period = Duration::from_secs(1) / shared.config.requests_per_second.max(1);
    let mut clock = tokio::time::interval(period);
    // Catch up after a stall: the rate is kept, not the spacing.
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut requests = JoinSet::new();
    loop {
        let due = tokio::select! {
            due = clock.tick() => due.into_std(),
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        while requests.try_join_next().is_some() {}
        let number = lock(&shared.report).send();
        let proxies = shared.config.proxies.len().max(1);
        let proxy = usize::try_from(number).unwrap_or(0) % proxies;
        let shared = shared.clone();
        requests.spawn(async move { one(&shared, proxy, due).await });
    }
    while requests.join_next().await.is_some() {}
}

async fn one(shared: &Shared, proxy: usize, due: Instant) {
    let deadline = tokio::time::Instant::from_std(due + shared.config.timeout);
    let in_flight = shared.in_flight.fetch_add(1, Ordering::Relaxed);
    let outcome = if in_flight >= IN_FLIGHT_MAX {
        Err("the generator has too many requests in flight".to_owned())
    } else {
        match tokio::time::timeout_at(deadline, ask(shared, proxy)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {:?}", shared.config.timeout)),
        }
    };
    shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    let mut report = lock(&shared.report);
    match outcome {
        Ok((sent, upstream)) => report.answer(due, sent, upstream),
        Err(reason) => report.fail(Failure {
            at: due.saturating_duration_since(shared.started),
            proxy: shared.config.proxies.get(proxy).copied(),
            reason,
        }),
    }
}

/// Sends one request, on an idle connection if there is one, and names who answered.
async fn ask(shared: &Shared, proxy: usize) -> Result<(Instant, String), String> {
    let (Some(addr), Some(pool)) = (shared.config.proxies.get(proxy), shared.pools.get(proxy))
    else {
        return Err("there is no proxy to ask".to_owned());
    };
    let mut request = Request::get(&shared.config.path)
        .header(http::header::HOST, &shared.config.host)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    loop {
        let idle = lock(pool).pop();
        let fresh = idle.is_none();
        let mut sender = match idle {
            Some(sender) if sender.is_closed() => continue,
            Some(sender) => sender,
            None => connect(*addr).await?,
        };
        let sent = Instant::now();
        let answer = match sender.try_send_request(request).await {
            Ok(answer) => answer,
            // Closed while idle, and nothing was sent: any client takes another connection.
            Err(mut error) => match error.take_message() {
                Some(unsent) if !fresh => {
                    request = unsent;
                    continue;
                }
                _ => return Err(format!("send: {}", chain(error.error()))),
            },
        };
        let upstream = crate::http::answered_by(&answer);
        answer.into_body().collect().await.map_err(|error| format!("body: {}", chain(&error)))?;
        if !sender.is_closed() {
            lock(pool).push(sender);
        }
        return upstream.map(|upstream| (sent, upstream));
    }
}

async fn connect(addr: SocketAddr) -> Result<Sender, String> {
    let stream = TcpStream::connect(addr).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("connect: {}", chain(&error)))?;
    // It ends with the sender; what goes wrong with it is told to the request.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
