//! A run from its beginning to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use dovetail_jepsen::checks::{self, Verdict};
use dovetail_jepsen::cluster::{Cluster, ClusterConfig};
use dovetail_jepsen::history::{Recorder, Seen, What};
use dovetail_jepsen::namespaces::Namespaces;
use dovetail_jepsen::operator::Operator;
use dovetail_jepsen::relays::Relays;
use dovetail_jepsen::supervisor::Executables;
use dovetail_jepsen::swarm::{ServiceConfig, Swarm};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clients::World;
use crate::clocks::Clocks;
use crate::disks::Disks;
use crate::faults::{Fault, Field};
use crate::schedule::Schedule;
use crate::wires::Wires;
use crate::{Run, finish, registers, remarks, report, requests, steps, watchers};

/// A host that is loaded, and whose service nobody touches.
pub(crate) const LOADED: &str = "load.example";
/// A host whose service is scaled up and down.
const SCALED: &str = "churn.example";
/// Subscribers that write down what they are sent.
pub(crate) const WATCHERS: u8 = 2;
/// Clients of registers and of remarks.
const REGISTER_CLIENTS: u64 = 4;
const REMARK_CLIENTS: u64 = 2;
/// How long the system may take to stand, on a busy machine.
const STANDS: Duration = Duration::from_secs(90);
/// Where all of it lives, in namespaces of its own.
const NETWORK: [u8; 3] = [10, 77, 0];

/// Starts, breaks, heals, checks, and writes everything down.
#[expect(clippy::print_stdout, reason = "how a run goes is its output")]
pub(crate) async fn run(run: Run) -> anyhow::Result<Vec<Verdict>> {
    let seed = run.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let folder = folder(&run)?;
    println!("seed {seed}, {} minutes, in {}", run.minutes, folder.display());
    let recorder = Recorder::create(&folder.join("history.jsonl"))?;
    let outcome = tokio::select! {
        outcome = broken(&run, seed, &folder, &recorder) => outcome,
        // As the first process of its namespace it gets no signal that it does not ask for.
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = &outcome {
        recorder.note(format!("the run broke: {error:#}"));
    }
    let history = recorder.finish()?;
    outcome.with_context(|| format!("what there is of it is in {}", folder.display()))?;
    let verdicts = checks::all(&history);
    report::write(&folder.join("report.md"), &run, seed, &history, &verdicts)?;
    let held = verdicts.iter().all(Verdict::holds);
    if held && run.keep.is_none() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    } else {
        println!("history, logs and report are in {}", folder.display());
    }
    Ok(verdicts)
}

fn folder(run: &Run) -> anyhow::Result<PathBuf> {
    match &run.keep {
        Some(folder) => {
            std::fs::create_dir(folder).with_context(|| folder.display().to_string())?;
            Ok(folder.clone())
        }
        None => Ok(tempfile::Builder::new().prefix("dovetail-break-").tempdir_in("/tmp")?.keep()),
    }
}

/// The run itself; when it is over, the history is whole.
async fn broken(run: &Run, seed: u64, folder: &Path, recorder: &Recorder) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let namespaces = match run.inside {
        // The addresses that members and proxies do not have are this process's own.
        true => Some(Namespaces::create(NETWORK, (1..=9).chain(30..=254)).context("the wire")?),
        false => None,
    };
    let mounts = tempfile::tempdir()?;
    let mut schedule =
        Schedule::of(&run.nemesis, run.members, run.upgrade_to.is_some(), run.inside);
    let other_build = run.upgrade_to.as_deref().map(Executables::of).transpose()?;
    // Whoever joins knows of five, which are the most; of five one is removed first.
    let joins = schedule.faults().contains(&Fault::Membership);
    let spare = if joins { 5_u8.saturating_sub(run.members) } else { 0 };
    let slots = 1..=run.members + spare;
    let refusing = schedule.faults().contains(&Fault::DiskError) && Disks::can_refuse();
    let disks = mounts.path().join("disks");
    let disks = match run.inside {
        true => Some(Disks::make(&disks, slots.clone(), refusing).context("the disks")?),
        false => None,
    };
    let clocks = match schedule.faults().contains(&Fault::Clock) {
        true => Clocks::make(&mounts.path().join("clocks"), slots.clone()),
        false => Err(anyhow::anyhow!("nobody asked for them")),
    };
    if let Err(error) = &clocks {
        recorder.note(format!("no clocks of members' own: {error:#}"));
    }
    let clocks = clocks.ok();
    let config = ClusterConfig {
        members: run.members + spare,
        founders: run.members,
        proxies: run.proxies,
        namespaces: namespaces.clone(),
        relayed: namespaces.is_none(),
        disks: disks.as_ref().map(|disks| disks.folder().to_path_buf()),
        before: clocks.as_ref().map(|clocks| clocks.before(slots)).unwrap_or_default(),
        ..ClusterConfig::default()
    };
    let mut cluster = Cluster::prepare(config).await?;
    let wires = match namespaces {
        Some(namespaces) => Wires::Namespaces(namespaces),
        None => Wires::Relays(Relays::default()),
    };
    wires.connect(&cluster).await?;
    let swarm = Swarm::start(&cluster).await?;
    for slot in cluster.founders() {
        cluster.start_member(slot)?;
    }
    for number in cluster.proxy_numbers() {
        cluster.start_proxy(number)?;
    }
    cluster.agreement_of_members(STANDS).await?;
    let hosts = publish(&swarm).await?;
    for host in &hosts {
        cluster.routed(host, STANDS).await?;
    }
    recorder.note(format!("it stands: {} members, {} proxies", run.members, run.proxies));

    let (stop_clients, clients_stop) = watch::channel(false);
    let (stop_watchers, watchers_stop) = watch::channel(false);
    let operator = Operator::load(&cluster.operator_dir())?;
    let members = cluster.founders().map(|slot| cluster.member_addr(slot).to_string()).collect();
    let recorder = recorder.clone();
    let world = World { recorder, operator, members, stop: clients_stop };
    let watching = World { stop: watchers_stop, ..world.clone() };
    let clients = clients(&world, &cluster, &swarm, &hosts, &mut random);
    let (watchers, newest) = watchers(&watching, &cluster, &mut random)?;

    let demanded = schedule.faults().iter().map(|fault| fault.name()).collect();
    world.recorder.event(What::Demanded { faults: demanded });
    let mut field = Field { cluster, swarm, wires, disks, clocks, other_build, world, random };
    let result = inflict_all(&mut field, &mut schedule, run.minutes).await;
    field.wires.heal()?;
    field.wires.quicken()?;
    let finished = match result {
        Ok(()) => finish::finish(&mut field, stop_clients, clients, &newest).await,
        Err(error) => Err(error),
    };
    stop_watchers.send_replace(true);
    join(watchers).await?;
    keep_logs(&field.cluster, folder);
    finished
}

/// One fault after the other, until every one came and the time is up.
#[expect(clippy::print_stdout, reason = "how a run goes is its output")]
async fn inflict_all(
    field: &mut Field,
    schedule: &mut Schedule,
    minutes: f64,
) -> anyhow::Result<()> {
    let until = field.world.recorder.elapsed() + Duration::from_secs_f64(minutes * 60.0);
    let mut random = field.random.fork();
    while !schedule.came_round() || field.world.recorder.elapsed() < until {
        let quiet = Duration::from_millis(field.random.u64(1_000..3_500));
        tokio::time::sleep(quiet).await;
        field.revive("between faults")?;
        let Some(fault) = schedule.next(&mut random) else { break };
        println!("{:7.1} s  {}", field.world.recorder.elapsed().as_secs_f64(), fault.name());
        field.inflict(fault).await.with_context(|| fault.name())?;
    }
    Ok(())
}

/// Publishes all services; the hosts that are asked for.
async fn publish(swarm: &Swarm) -> anyhow::Result<Vec<String>> {
    let mut shared: Vec<String> =
        (0..usize::from(registers::REGISTERS)).map(registers::host).collect();
    shared.push(steps::HOST.to_owned());
    for service in registers::SERVICES {
        swarm.create(ServiceConfig::published(service, &shared.join(","), 2)).await?;
    }
    swarm.create(ServiceConfig::published("load", LOADED, 2)).await?;
    swarm.create(ServiceConfig::published("churn", SCALED, 2)).await?;
    Ok(vec![steps::HOST.to_owned(), LOADED.to_owned(), SCALED.to_owned()])
}

type Jobs = JoinSet<anyhow::Result<()>>;

/// All that orders, reads and asks.
fn clients(
    world: &World,
    cluster: &Cluster,
    swarm: &Swarm,
    hosts: &[String],
    random: &mut fastrand::Rng,
) -> Jobs {
    let mut jobs = Jobs::new();
    let values = registers::values();
    for number in 1..=REGISTER_CLIENTS {
        let name = format!("register-{number}");
        jobs.spawn(registers::run(world.clone(), name, random.u64(..), values.clone()));
    }
    for number in 1..=REMARK_CLIENTS {
        let name = format!("remark-{number}");
        jobs.spawn(remarks::write(world.clone(), name, random.u64(..)));
    }
    jobs.spawn(remarks::read(world.clone(), random.u64(..)));
    jobs.spawn(steps::run(world.clone(), random.u64(..)));
    jobs.spawn(steps::read(world.clone(), random.u64(..)));
    jobs.spawn(scale(world.clone(), swarm.clone(), random.u64(..)));
    for number in cluster.proxy_numbers() {
        let (name, addr) = (format!("proxy-{number}"), cluster.proxy_addr(number));
        jobs.spawn(requests::run(world.clone(), name, addr, hosts.to_vec()));
    }
    jobs
}

/// All that only looks, to the very end, and what the watchers have.
fn watchers(
    world: &World,
    cluster: &Cluster,
    random: &mut fastrand::Rng,
) -> anyhow::Result<(Jobs, Vec<Arc<AtomicU64>>)> {
    let mut jobs = Jobs::new();
    let subscriber = Operator::load(&cluster.tls_dir().join("proxy"))?;
    let mut newest = Vec::new();
    for number in 1..=WATCHERS {
        let (name, has) = (format!("watcher-{number}"), Arc::new(AtomicU64::new(0)));
        newest.push(has.clone());
        jobs.spawn(watchers::run(world.clone(), name, random.u64(..), subscriber.clone(), has));
    }
    for number in cluster.proxy_numbers() {
        let (name, admin) = (format!("proxy-{number}"), cluster.proxy_admin_addr(number));
        jobs.spawn(requests::look(world.clone(), name, admin));
    }
    Ok((jobs, newest))
}

/// Scales a service up and down, as its owner would: each change is a revision.
async fn scale(world: World, swarm: Swarm, seed: u64) -> anyhow::Result<()> {
    let mut client = world.client("scale", seed)?;
    while !world.stopped() {
        client.rest(2_000..5_000).await;
        let replicas = client.random.u8(1..=4);
        if let Err(error) = swarm.scale("churn", replicas).await {
            world.recorder.seen("scale", Seen::Note { text: format!("{error:#}") });
        }
    }
    Ok(())
}

/// Waits for all jobs; the first error of them.
pub(crate) async fn join(mut jobs: Jobs) -> anyhow::Result<()> {
    while let Some(job) = jobs.join_next().await {
        job.context("a client")??;
    }
    Ok(())
}

/// Copies the logs of all processes beside the history.
fn keep_logs(cluster: &Cluster, folder: &Path) {
    let Ok(entries) = std::fs::read_dir(cluster.place().folder()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(name) = path.file_name()
        {
            // A missing log makes no run a bad one.
            _ = std::fs::copy(&path, folder.join(name));
        }
    }
}
