//! Builds a member, in the order in which a reader should meet its parts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dovetail_config::ClusterKeys;
use dovetail_control::checkpoint::{self, Checkpointer};
use dovetail_control::clocks::Clocks;
use dovetail_control::fleet::Fleet;
use dovetail_control::ports::{QuorumView, Slot};
use dovetail_control::reconcile;
use dovetail_control::schedule::Schedule;
use dovetail_control::seed::Seeder;
use dovetail_control::services::Core;
use dovetail_control::soft::SoftProblems;
use dovetail_control::vitals::Vitals;
use dovetail_process::admin::{self, Admin};
use dovetail_process::config::{ConfigFile, Parsed};
use dovetail_process::drain::{Drain, DrainWatch};
use dovetail_process::identity::Identity;
use dovetail_process::ready::Readiness;
use dovetail_process::tls::TlsDir;
use dovetail_process::{grpc, log, signal};
use dovetail_raft_store::{LogStore, Raft, StateMachine, Store, StoreConfig, raft_config};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::args::{Args, InvalidArgs};
use crate::docker::SwarmView;
use crate::raft::formation::{self, Formed};
use crate::raft::hub::Hub;
use crate::raft::network::Network;
use crate::raft::peers::OtherMembers;
use crate::raft::quorum::{self, RaftQuorum};
use crate::raft::refill::Refill;
use crate::raft::removal;
use crate::raft::server::Server;
use crate::shutdown;
use crate::upkeep::Upkeep;

type MemberCore = Core<RaftQuorum, OtherMembers, SwarmView>;

/// Where the admin endpoint listens unless told.
const ADMIN_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9_090);

/// Runs a member until it is told to end, or cannot go on.
pub(crate) fn run(given: Parsed<Args>) -> anyhow::Result<()> {
    let Parsed { args, file, warnings } = given;
    args.validate()?;
    log::init(args.log)?;
    warnings.iter().for_each(|warning| warn!(%warning, "configuration"));
    let keys = match &file {
        Some(file) => cluster_keys(file)?,
        None => ClusterKeys::default(),
    };
    let tls = TlsDir::load(&args.tls_dir)?;
    let identity = tls.identity();
    if *identity != (Identity::Member { slot: args.id }) {
        return Err(InvalidArgs::OtherCertificate {
            id: args.id,
            file: args.tls_dir.join("cert.pem").display().to_string(),
            identity: identity.to_string(),
        }
        .into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(args, tls, keys))
}

async fn serve(args: Args, tls: TlsDir, keys: ClusterKeys) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen {}", args.listen))?;
    let store = open_store(&args).await?;
    let readiness = Readiness::new();
    let drain = Drain::new();
    serve_admin(&args, &readiness, drain.watch()).await?;
    drain.watch().spawn(tls.clone().watch(drain.watch()));

    // Who this member is, and its part of the quorum.
    let Store { log, machine, owner, ledger, state, handle } = store;
    let advertised = args.advertised().to_owned();
    let hub =
        Hub::new(args.id, args.members.clone(), advertised, tls.clone(), owner, handle.clone());
    let (view_sender, view) = watch::channel(QuorumView {
        cluster_id: hub.owner().cluster_id,
        this: args.id,
        ..QuorumView::default()
    });
    let quorum = Arc::new(RaftQuorum::new(Arc::clone(&hub), state.clone(), view, ledger.clone()));

    // What it serves: Raft to members, the feed to proxies, the admin API to operators.
    let poll_interval = keys.config.as_ref().and_then(|config| config.poll_interval);
    let swarm = Arc::new(SwarmView::start(&args, poll_interval, drain.watch()).await?);
    let core = Core {
        quorum,
        peers: Arc::new(OtherMembers::new(Arc::clone(&hub))),
        docker: swarm,
        fleet: Fleet::new(),
        soft: SoftProblems::new(),
        drain: drain.watch(),
    };
    let services = dovetail_control::services::services(&core)?.add_service(Server::service(
        Arc::clone(&hub),
        core.local(),
        ledger.clone(),
    ));
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(1)))
        .http2_keepalive_timeout(Some(Duration::from_secs(2)))
        .add_routes(services);
    let (stop_serving, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving =
        tokio::spawn(server.serve_with_incoming_shutdown(grpc::incoming(listener, tls), async {
            let _ = stopped.await;
        }));
    info!(id = args.id, listen = %args.listen, members = %args.members, "member started");

    // The quorum forms, or this member joins the one that its disk belongs to.
    let check = readiness.register("formation");
    let formed = tokio::select! {
        biased;
        name = signal::shutdown() => {
            info!(signal = name, "ended before the quorum was formed");
            return Ok(());
        }
        formed = formation::form(&hub, &args.data_dir, &check) => formed?,
    };
    start_raft(&hub, log, machine, formed, args.raft_log_kept).await?;
    check.set_ok();
    let raft_ended = tokio::spawn(quorum::follow(Arc::clone(&hub), view_sender));
    let idle = Duration::from_secs(args.checkpoint_idle);
    start_jobs(&core, args.id, keys, idle, &readiness);
    let refill = Refill {
        hub: Arc::clone(&hub),
        ledger,
        source: Arc::clone(&core.peers),
        soft: core.soft.clone(),
        retention: args.retention(),
        state: state.clone(),
    };
    drain.watch().spawn(refill.run(drain.watch()));
    let upkeep = Upkeep {
        hub: Arc::clone(&hub),
        soft: core.soft.clone(),
        retention: args.retention(),
        state,
    };
    drain.watch().spawn(upkeep.run(drain.watch()));

    let ended = tokio::select! {
        biased;
        name = signal::shutdown() => {
            info!(signal = name, "shutdown begun");
            None
        }
        reason = failed(handle.fatal()) => Some(format!("the store failed: {reason}")),
        reason = removal::removed(Arc::clone(&hub)) => Some(reason),
        reason = raft_ended => Some(format!("raft has ended: {}", reason.unwrap_or_default())),
        _ = serving => Some("the gRPC server has ended".to_owned()),
    };
    match ended {
        // A member whose store or core is dead must not linger: others take over at once.
        Some(reason) => Err(anyhow::Error::msg(reason)),
        None => {
            shutdown::run(&hub, &readiness, drain, stop_serving).await;
            Ok(())
        }
    }
}

/// What a member does by itself, once it is of a quorum.
fn start_jobs(
    core: &MemberCore,
    slot: Slot,
    keys: ClusterKeys,
    idle: Duration,
    readiness: &Readiness,
) {
    let drain = &core.drain;
    let reconciler = reconcile::Config::of_member(slot).build(
        Arc::clone(&core.quorum),
        Arc::clone(&core.docker),
        core.soft.clone(),
    );
    drain.spawn(reconciler.run(drain.clone()));
    drain.spawn(Schedule::new(core.clone(), slot).run(drain.clone()));
    drain.spawn(Clocks::new(core.clone()).run(drain.clone()));
    drain.spawn(Vitals::new(core.clone(), readiness).run(drain.clone()));
    let checkpoints = checkpoint::Config { idle };
    let agrees = readiness.register("agreement");
    drain.spawn(Checkpointer::new(core, agrees, checkpoints).run(drain.clone()));
    if let Some(config) = keys.config {
        let seeder = Seeder::new(Arc::clone(&core.quorum), config, slot, core.soft.clone());
        drain.spawn(seeder.run(drain.clone()));
    }
}

/// What the file says about the cluster; keys without effect are warned of.
fn cluster_keys(file: &ConfigFile) -> anyhow::Result<ClusterKeys> {
    let flags = crate::args::flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let keys = dovetail_config::parse(file.text(), &flags)
        .with_context(|| file.path().display().to_string())?;
    for warning in &keys.warnings {
        warn!(file = %file.path().display(), %warning, "configuration");
    }
    Ok(keys)
}

async fn open_store(args: &Args) -> anyhow::Result<Store> {
    let (dir, slot) = (args.data_dir.clone(), args.id);
    let config = StoreConfig {
        checkpoint_entries: args.checkpoint_entries,
        snapshot_entries: args.raft_snapshot_entries,
        ..StoreConfig::default()
    };
    let opened = tokio::task::spawn_blocking(move || dovetail_raft_store::open(&dir, slot, config));
    Ok(opened.await.context("open the store")??)
}

/// The admin endpoint. The default port may be taken by another member on this machine.
async fn serve_admin(args: &Args, readiness: &Readiness, drain: DrainWatch) -> anyhow::Result<()> {
    let address = args.admin.unwrap_or(ADMIN_DEFAULT);
    match admin::bind(address).await {
        Ok(listener) => {
            let admin = Admin::new(readiness.clone()).with_metrics(admin::record_metrics()?);
            drain.spawn(admin.serve(listener, drain.clone()));
        }
        Err(error) if args.admin.is_none() => {
            warn!(%address, %error, "no admin endpoint: give --admin");
        }
        Err(error) => {
            return Err(anyhow::Error::new(error).context("--admin"));
        }
    }
    Ok(())
}

async fn start_raft(
    hub: &Arc<Hub>,
    log: LogStore,
    machine: StateMachine,
    formed: Formed,
    log_kept: u64,
) -> anyhow::Result<()> {
    let network = Network::new(Arc::clone(hub));
    let config = raft_config(log_kept)?;
    let raft =
        Raft::new(hub.node_id(), config, network, log, machine).await.context("start raft")?;
    hub.start(raft.clone());
    if let Formed::Initialise(nodes) = formed {
        raft.initialize(nodes).await.context("initialise raft")?;
    }
    Ok(())
}

/// Waits until the store reports that it cannot go on.
async fn failed(mut fatal: watch::Receiver<Option<String>>) -> String {
    match fatal.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        Err(_) => std::future::pending().await,
    }
}
