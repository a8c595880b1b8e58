//! A proxy with a fixed table, for measurements: `fixed LISTEN HOST UPSTREAM…`.
//!
//! No core, no access log; one thread, or `THREADS` of the environment. With `HTTPS` (an
//! address) and `SECRETS_DIR` (where `fixed.pem` holds chain and key), TLS as well. With
//! `HIDE_INFO_HEADERS`, answers do not say who served them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dovetail_proxy::access_log::AccessLogTarget;
use dovetail_proxy::secrets::Secrets;
use dovetail_proxy::server::Config;
use dovetail_proxy::stream::BODY_RATE_WINDOW;
use dovetail_proxy::worker::Limits;
use dovetail_routing::names::ContextRoot;
use dovetail_routing::snapshot::{
    Certificate, Dial, Revision, Route, RouteHost, RouteOptions, RouteService, Snapshot, Tls,
    Upstream, UpstreamState,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dovetail_process::exit::say(&format!("{error}; fixed LISTEN HOST UPSTREAM…"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let http: SocketAddr = words.next().ok_or("no address to listen on")?.parse()?;
    let host = words.next().ok_or("no host")?.parse()?;
    let upstreams = words
        .map(|address| {
            let state = UpstreamState::Active;
            Ok(Upstream { address: address.parse()?, state, task: None, node: None })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let services = vec![RouteService {
        id: "service".into(),
        name: "service".into(),
        weight: 10_000,
        dial: Dial::default(),
        upstreams,
    }];
    let secrets_dir = std::env::var_os("SECRETS_DIR").map(PathBuf::from);
    let tls = match &secrets_dir {
        Some(_) => {
            let cert = "fixed.pem".parse()?;
            Tls::Terminate(Certificate { cert, key: None, client_ca: None })
        }
        None => Tls::None,
    };
    let (path, options) = (ContextRoot::root(), RouteOptions::default());
    let routes = vec![Route { host: RouteHost::Named(host), path, tls, options, services }];
    let revision = Revision(1);
    let mut snapshot = Snapshot { revision, routes, ..Snapshot::default() };
    snapshot.options.hide_info_headers = std::env::var_os("HIDE_INFO_HEADERS").is_some();
    let snapshot = Arc::new(snapshot);
    let access_log = std::env::var("ACCESS_LOG").unwrap_or_else(|_| "none".to_owned());
    let server = Config {
        http,
        https: std::env::var("HTTPS").ok().map(|https| https.parse()).transpose()?,
        threads: std::env::var("THREADS").map_or(Ok(1), |threads| threads.parse())?,
        name: "fixed".to_owned(),
        access_log: access_log.parse::<AccessLogTarget>()?,
        secrets: Secrets::new(secrets_dir),
        limits: Limits {
            connections_max: 100_000,
            connections_per_client_max: 0,
            head_timeout: Duration::from_secs(10),
            client_timeout: Duration::from_secs(60),
            body_rate_window: BODY_RATE_WINDOW,
        },
    }
    .build()?;
    server.shared().put_in_force(&snapshot)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut running = server.start()?;
        tokio::select! {
            () = running.ended() => {}
            _ = dovetail_process::signal::shutdown() => {
                running.drain(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    })
}
