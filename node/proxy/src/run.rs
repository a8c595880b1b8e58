//! The process: builds everything in the order in which it is needed, and ends it in reverse.
//!
//! Start: certificate, data folder and port are checked first, each with one clear
//! line. The routes come from the copy on disk, then from the core. Requests are taken
//! as soon as there are routes; without any for five seconds they are taken all the
//! same, and answered 503 with `x-dovetail-error: no_table`.
//!
//! End: not ready, a moment for load balancers to notice, no new connections, requests
//! end, and at the end of the grace period what is left is broken off.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dovetail_feed::{Apply, DiskCopy, DiskError, ServiceTraffic};
use dovetail_process::admin::{self, Admin, AdminError};
use dovetail_process::config::{Parsed, args_with_config};
use dovetail_process::drain::Drain;
use dovetail_process::log::LogError;
use dovetail_process::ready::{Check, Readiness};
use dovetail_process::tls::{TlsDir, TlsError};
use dovetail_process::{exit, log, signal};
use dovetail_routing::Snapshot;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::access_log::AccessLogTarget;
use crate::args::{Args, CLUSTER_KEYS, InvalidArgs, WrongCertificate};
use crate::secrets::Secrets;
use crate::server::{Config, Running, Server, ServerError};
use crate::stream::BODY_RATE_WINDOW;
use crate::telemetry;
use crate::traffic;
use crate::worker::{Limits, Shared};

/// How long a start waits for routes before it takes requests without.
const START_WAIT: Duration = Duration::from_secs(5);
/// How long feed and admin endpoint may take to end.
const CONTROL_GRACE: Duration = Duration::from_secs(2);

/// A proxy that cannot begin, or ended by itself.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Args(#[from] InvalidArgs),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Certificate(#[from] WrongCertificate),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error("every thread that serves requests ended")]
    Ended,
}

/// Runs the proxy until it is told to end.
pub fn main() -> ExitCode {
    let parsed = args_with_config::<Args>(CLUSTER_KEYS);
    match run(&parsed) {
        Ok(code) => code,
        Err(error @ RunError::Args(_)) => exit::fail_with(&error, 2),
        Err(error) => exit::fail(&error),
    }
}

fn run(parsed: &Parsed<Args>) -> Result<ExitCode, RunError> {
    let args = &parsed.args;
    args.check()?;
    let (core, service_cluster) = (args.core()?, args.service_cluster()?);
    let threads = args.threads()?;
    log::init(args.log_format)?;
    for warning in &parsed.warnings {
        warn!("{warning}");
    }
    let tls = TlsDir::load(&args.tls_dir)?;
    let name = args.certified_name(&tls)?;
    let disk = DiskCopy::open(&args.data_dir)?;
    raise_file_limit(args.connections_max);
    let metrics = admin::record_metrics()?;
    telemetry::describe();
    let secrets = Secrets::new(args.secrets_dir.clone());
    let secrets = match &args.secrets_dir {
        // A service must not make its host answer as this proxy does to the core.
        Some(dir) if *dir == args.tls_dir => secrets.without(&["ca.pem", "cert.pem", "key.pem"]),
        _ => secrets,
    };
    let server = Config {
        http: args.http,
        https: args.https,
        threads,
        name: name.clone(),
        access_log: args.access_log.clone().unwrap_or(AccessLogTarget::Configured),
        secrets,
        limits: Limits {
            connections_max: args.connections_max,
            connections_per_client_max: args.connections_per_client_max,
            head_timeout: Duration::from_secs(10),
            client_timeout: Duration::from_secs(60),
            body_rate_window: BODY_RATE_WINDOW,
        },
    }
    .build()?;
    let feed = dovetail_feed::Config {
        core,
        tls: tls.clone(),
        service_cluster,
        name,
        address: server.address().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        disk,
        problems: server.shared().problems.reported(),
    };
    // Feed, admin endpoint and signals, apart from the threads that serve requests.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let code = runtime.block_on(control(args, tls, feed, server, metrics));
    // What still blocks there is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// Puts snapshots in force.
struct Table {
    shared: Arc<Shared>,
    routes: Check,
}

impl Apply for Table {
    fn apply(&self, snapshot: &Arc<Snapshot>) -> Result<(), String> {
        self.shared.put_in_force(snapshot).map_err(|error| error.to_string())?;
        self.routes.set_ok();
        Ok(())
    }

    fn traffic(&self, host: &str, path: &str) -> Vec<ServiceTraffic> {
        let table = self.shared.table.pin();
        let entry = table.as_ref().and_then(|table| table.entry(host, path));
        entry.map(|entry| traffic::read(entry)).unwrap_or_default()
    }
}

async fn control(
    args: &Args,
    tls: TlsDir,
    feed: dovetail_feed::Config,
    server: Server,
    metrics: admin::PrometheusHandle,
) -> Result<ExitCode, RunError> {
    let drain = Drain::new();
    let readiness = Readiness::new();
    let routes = readiness.register("routes");
    routes.set_not_ready("no routes from the core yet, and no copy on disk");
    let listening = readiness.register("listening");
    let admin = admin::bind(args.admin).await?;
    if let Ok(admin) = admin.local_addr() {
        info!(%admin, "admin endpoint listening");
    }
    let endpoint = Admin::new(readiness.clone()).with_metrics(metrics);
    drain.watch().spawn(endpoint.serve(admin, drain.watch()));
    drain.watch().spawn(tls.watch(drain.watch()));

    let table = Arc::new(Table { shared: Arc::clone(server.shared()), routes });
    let (feed, mut status) = feed.build(table);
    drain.watch().spawn(feed.run(drain.watch()));

    let mut told = std::pin::pin!(signal::shutdown());
    let first = async {
        // An error means that the feed ended, and so does everything.
        let _ = status.wait_for(|status| status.in_force.is_some()).await;
    };
    tokio::select! {
        biased;
        signal = told.as_mut() => {
            info!(signal, "ended before it began");
            return Ok(ExitCode::SUCCESS);
        }
        waited = tokio::time::timeout(START_WAIT, first) => if waited.is_err() {
            warn!("no routes yet: requests are answered 503 until they come");
        }
    }
    let (http, https) = (server.address(), server.https_address());
    let mut running = server.start()?;
    listening.set_ok();
    match https {
        Some(https) => info!(%http, %https, "listening"),
        None => info!(%http, "listening"),
    }

    tokio::select! {
        biased;
        signal = told.as_mut() => info!(signal, "draining"),
        () = running.ended() => return Err(RunError::Ended),
    }
    listening.set_not_ready("draining");
    tokio::select! {
        biased;
        signal = signal::shutdown() => {
            warn!(signal, "told twice: ending at once");
            return Ok(ExitCode::FAILURE);
        }
        () = end(args, running, drain) => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn end(args: &Args, running: Running, drain: Drain) {
    tokio::time::sleep(args.drain_notice).await;
    match running.drain(args.grace).await {
        0 => info!("drained"),
        connections => warn!(connections, "connections broken off at the end of the grace period"),
    }
    drain.finish(CONTROL_GRACE).await;
}

/// Asks for as many open files as the connections need: two each, and some.
fn raise_file_limit(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_mul(2);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let possible = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised =
        setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum: limit.maximum });
    if raised.is_err() || possible < wanted {
        warn!(possible, wanted, "fewer open files than connections may need");
    }
}
