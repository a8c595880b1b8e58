//! What a TLS handshake costs one thread of the proxy, with few names and with many.
//!
//! `handshakes [SECONDS]`: two proxies with fixed tables, of 10 and of 10,000 names, each with
//! one thread, take full TLS 1.3 handshakes in turns. Ten names share a certificate (ECDSA
//! P-256). The client is in this process; so the processor time of the proxy's thread is told
//! besides, which other work on the machine changes little.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dovetail_proxy::access_log::AccessLogTarget;
use dovetail_proxy::secrets::Secrets;
use dovetail_proxy::server::{Config, Running};
use dovetail_proxy::stream::BODY_RATE_WINDOW;
use dovetail_proxy::worker::Limits;
use dovetail_routing::names::ContextRoot;
use dovetail_routing::snapshot::{Certificate, Revision, Route, RouteOptions, Snapshot, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn std::error::Error>;

/// Names that share a certificate.
const SHARED_BY: usize = 10;
/// Clients at one time.
const CLIENTS: usize = 16;
/// Turns that each proxy has.
const TURNS: usize = 5;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dovetail_process::exit::say(&format!("{error}; handshakes [SECONDS]"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let seconds = std::env::args().nth(1).map_or(Ok(2), |seconds| seconds.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (few, many) = (World::new(10)?, World::new(10_000)?);
        let mut turns = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for (world, turns) in [&few, &many].into_iter().zip(&mut turns) {
                turns.push(world.turn(Duration::from_secs(seconds)).await?);
            }
        }
        for (world, turns) in [few, many].into_iter().zip(turns) {
            let (rates, costs): (Vec<_>, Vec<_>) = turns.into_iter().unzip();
            dovetail_process::exit::say(&format!(
                "{} names: {} handshakes a second, {} us of the proxy's thread each, in force after {:?}",
                world.names,
                spread(rates),
                spread(costs),
                world.took,
            ));
            world.running.drain(Duration::ZERO).await;
        }
        Ok(())
    })
}

/// Median, least and most.
fn spread(mut of_turns: Vec<f64>) -> String {
    of_turns.sort_by(f64::total_cmp);
    format!("{:.0} ({:.0} to {:.0})", of_turns[TURNS / 2], of_turns[0], of_turns[TURNS - 1])
}

/// The threads of this process that serve requests.
fn proxy_threads() -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.trim() == "proxy-0" {
            found.push(path);
        }
    }
    Ok(found)
}

/// A proxy with so many names.
struct World {
    names: usize,
    /// Until all certificates were in force.
    took: Duration,
    address: SocketAddr,
    client: Arc<ClientConfig>,
    running: Running,
    thread: PathBuf,
    _secrets: tempfile::TempDir,
}

impl World {
    fn new(names: usize) -> Result<Self, Failure> {
        let secrets = tempfile::tempdir()?;
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(authority.self_signed(&key)?.der().clone())?;
        let authority = Issuer::new(authority, key);
        let mut routes = Vec::new();
        for group in 0..names / SHARED_BY {
            let hosts: Vec<String> =
                (0..SHARED_BY).map(|host| format!("host-{host}.group-{group}.example")).collect();
            let key = KeyPair::generate()?;
            let cert = CertificateParams::new(hosts.clone())?.signed_by(&key, &authority)?;
            let name = format!("group-{group}");
            std::fs::write(secrets.path().join(&name), cert.pem() + &key.serialize_pem())?;
            for host in hosts {
                routes.push(Route {
                    host: host.parse()?,
                    path: ContextRoot::root(),
                    tls: Tls::Terminate(Certificate {
                        cert: name.parse()?,
                        key: None,
                        client_ca: None,
                    }),
                    options: RouteOptions::default(),
                    services: Vec::new(),
                });
            }
        }
        routes.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
        let snapshot = Arc::new(Snapshot { revision: Revision(1), routes, ..Snapshot::default() });
        let server = Config {
            http: ([127, 0, 0, 1], 0).into(),
            https: Some(([127, 0, 0, 1], 0).into()),
            threads: 1,
            name: "handshakes".to_owned(),
            access_log: AccessLogTarget::None,
            secrets: Secrets::new(Some(secrets.path().to_owned())),
            limits: Limits {
                connections_max: 100_000,
                connections_per_client_max: 0,
                head_timeout: Duration::from_secs(10),
                client_timeout: Duration::from_secs(60),
                body_rate_window: BODY_RATE_WINDOW,
            },
        }
        .build()?;
        let began = Instant::now();
        server.shared().put_in_force(&snapshot)?;
        let took = began.elapsed();
        let address = server.https_address().ok_or("no address for TLS")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        let before = proxy_threads()?;
        let (client, running) = (Arc::new(client), server.start()?);
        // A thread takes its name once it runs.
        let thread = (0..1_000_000).find_map(|_| {
            std::thread::yield_now();
            proxy_threads().ok()?.into_iter().find(|thread| !before.contains(thread))
        });
        let thread = thread.ok_or("no thread serves")?;
        Ok(Self { names, took, address, client, running, thread, _secrets: secrets })
    }

    /// Nanoseconds that its thread has had a processor.
    fn busy(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(self.thread.join("schedstat"))?;
        Ok(stat.split(' ').next().ok_or("no time")?.parse()?)
    }

    /// Handshakes a second, and microseconds of the thread for each; names by chance.
    async fn turn(&self, time: Duration) -> Result<(f64, f64), Failure> {
        let busy = self.busy()?;
        let (count, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut clients = tokio::task::JoinSet::new();
        let began = Instant::now();
        for _ in 0..CLIENTS {
            let (count, stop) = (Arc::clone(&count), Arc::clone(&stop));
            let connector = TlsConnector::from(Arc::clone(&self.client));
            let (address, groups) = (self.address, self.names / SHARED_BY);
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let group = fastrand::usize(..groups);
                    let host = fastrand::usize(..SHARED_BY);
                    let name = ServerName::try_from(format!("host-{host}.group-{group}.example"));
                    let Ok(name) = name else { return };
                    let Ok(tcp) = TcpStream::connect(address).await else { return };
                    if connector.connect(name, tcp).await.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        clients.join_all().await;
        // A count of a few seconds fits a double.
        let count = count.load(Ordering::Relaxed) as f64;
        let cost = (self.busy()? - busy) / count / 1e3;
        Ok((count / began.elapsed().as_secs_f64(), cost))
    }
}
