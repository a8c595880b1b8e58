//! A whole system of real processes on one machine: identities, members, proxies.
//!
//! Each machine of the imagined swarm has its own loopback address: `.2` is the
//! Docker stand-in, `.11` on are members, `.21` on are proxies, `.100` on are tasks.

mod ask;
mod processes;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::namespaces::Namespaces;
use crate::relays::Relays;
use crate::supervisor::{Executables, Place, Process, ProcessConfig, run_to_end};

/// How long a command of `dovetail` may take before it counts as hung.
const COMMAND_DEADLINE: Duration = Duration::from_secs(15);
/// How long a process may take to end after SIGTERM.
pub const END_DEADLINE: Duration = Duration::from_secs(15);

const MEMBER_HOST: u8 = 10;
const PROXY_HOST: u8 = 20;
const STAND_IN_HOST: u8 = 2;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    pub members: u8,
    /// The first so many form the quorum; the others know of them all, and wait to be added.
    pub founders: u8,
    pub proxies: u8,
    /// Where Docker answers; the stand-in when absent.
    pub docker: Option<String>,
    /// Further arguments of every member.
    pub member_arguments: Vec<String>,
    /// Further arguments of every proxy.
    pub proxy_arguments: Vec<String>,
    /// The service clusters of those proxies that do not serve the default one.
    pub service_clusters: BTreeMap<u8, String>,
    /// What `--config` of every member leads to, in TOML.
    pub config: Option<String>,
    /// Each process in a network namespace of its own, on these machines; loopback when absent.
    pub namespaces: Option<Namespaces>,
    /// Members are reached by relays, which are somebody else's business.
    pub relayed: bool,
    /// Where the folders of members' data are; that of the cluster when absent.
    pub disks: Option<PathBuf>,
    /// What stands before the command of a member: a program that starts it.
    pub before: BTreeMap<u8, Vec<OsString>>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            members: 3,
            founders: u8::MAX,
            proxies: 2,
            docker: None,
            member_arguments: Vec::new(),
            proxy_arguments: Vec::new(),
            service_clusters: BTreeMap::new(),
            config: None,
            namespaces: None,
            relayed: false,
            disks: None,
            before: BTreeMap::new(),
        }
    }
}

/// Members and proxies, each a process that is ended with this value.
#[derive(Debug)]
pub struct Cluster {
    // Ended before the folder goes: fields drop in order.
    members: Vec<Option<Process>>,
    proxies: Vec<Option<Process>>,
    config: ClusterConfig,
    executables: Executables,
    place: Place,
}

impl Cluster {
    /// Claims addresses and makes the certificates; starts nothing.
    pub async fn prepare(config: ClusterConfig) -> anyhow::Result<Self> {
        let executables = Executables::find()?;
        let place = match &config.namespaces {
            None => Place::claim()?,
            Some(namespaces) => Place::on(namespaces.network())?,
        };
        let cluster = Self {
            members: (0..config.members).map(|_| None).collect(),
            proxies: (0..config.proxies).map(|_| None).collect(),
            config,
            executables,
            place,
        };
        cluster.make_certificates(&cluster.tls_dir()).await?;
        std::fs::create_dir(cluster.secrets_dir()).context("make the folder of secrets")?;
        if let Some(config) = &cluster.config.config {
            std::fs::write(cluster.config_file(), config).context("write the config")?;
        }
        Ok(cluster)
    }

    /// Makes another set of certificates, of a CA of its own.
    pub async fn make_certificates(&self, folder: &PathBuf) -> anyhow::Result<()> {
        let mut command = Command::new(&self.executables.dovetail);
        command.args(["pki", "init"]).arg(folder);
        command.args(["--members", &self.config.members.to_string()]);
        for slot in self.slots() {
            command.args(["--san", &self.place.ip(MEMBER_HOST + slot).to_string()]);
        }
        let done = run_to_end(command, COMMAND_DEADLINE).await.context("dovetail pki init")?;
        ensure!(done.code == Some(0), "dovetail pki init: {}", done.stderr);
        Ok(())
    }

    /// The slots of all members, started or not.
    pub fn slots(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.config.members
    }

    /// The slots of those that form the quorum.
    pub fn founders(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.config.members.min(self.config.founders)
    }

    /// The numbers of all proxies, started or not.
    pub fn proxy_numbers(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.config.proxies
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    pub fn executables(&self) -> &Executables {
        &self.executables
    }

    /// Where the Docker stand-in listens.
    pub fn stand_in_addr(&self) -> SocketAddr {
        self.place.addr(STAND_IN_HOST, 2_375)
    }

    /// Where a member takes gRPC.
    pub fn member_addr(&self, slot: u8) -> SocketAddr {
        self.place.addr(MEMBER_HOST + slot, 8_080)
    }

    /// Where a machine reaches a member.
    fn member_seen_from(&self, host: u8, slot: u8) -> SocketAddr {
        let addr = self.member_addr(slot);
        if self.config.relayed && host != self.member_host(slot) {
            Relays::address(host, addr)
        } else {
            addr
        }
    }

    /// Where a member's admin HTTP answers.
    pub fn member_admin_addr(&self, slot: u8) -> SocketAddr {
        self.place.addr(MEMBER_HOST + slot, 9_090)
    }

    /// Where a proxy takes plain HTTP.
    pub fn proxy_addr(&self, number: u8) -> SocketAddr {
        self.place.addr(PROXY_HOST + number, 8_080)
    }

    /// Where a proxy takes TLS.
    pub fn proxy_tls_addr(&self, number: u8) -> SocketAddr {
        self.place.addr(PROXY_HOST + number, 8_443)
    }

    /// Where a proxy's admin HTTP answers.
    pub fn proxy_admin_addr(&self, number: u8) -> SocketAddr {
        self.place.addr(PROXY_HOST + number, 9_090)
    }

    /// Of all proxies, plain HTTP.
    pub fn proxy_addrs(&self) -> Vec<SocketAddr> {
        self.proxy_numbers().map(|number| self.proxy_addr(number)).collect()
    }

    /// `--core`, all members.
    pub fn core(&self) -> String {
        let addrs = self.slots().map(|slot| self.member_addr(slot).to_string());
        addrs.collect::<Vec<_>>().join(",")
    }

    fn core_seen_from(&self, host: u8) -> String {
        let addrs = self.slots().map(|slot| self.member_seen_from(host, slot).to_string());
        addrs.collect::<Vec<_>>().join(",")
    }

    pub fn tls_dir(&self) -> PathBuf {
        self.place.path("tls")
    }

    /// The operator's certificate.
    pub fn operator_dir(&self) -> PathBuf {
        self.tls_dir().join("operator")
    }

    /// Where all proxies find secrets.
    pub fn secrets_dir(&self) -> PathBuf {
        self.place.path("secrets")
    }

    fn config_file(&self) -> PathBuf {
        self.place.path("dovetail.toml")
    }

    pub fn member_data_dir(&self, slot: u8) -> PathBuf {
        match &self.config.disks {
            None => self.place.path(&format!("member-{slot}")),
            Some(disks) => disks.join(format!("member-{slot}/data")),
        }
    }

    /// The machine of a member, as its namespace is numbered.
    pub fn member_host(&self, slot: u8) -> u8 {
        MEMBER_HOST + slot
    }

    /// The machine of a proxy.
    pub fn proxy_host(&self, number: u8) -> u8 {
        PROXY_HOST + number
    }

    pub fn proxy_data_dir(&self, number: u8) -> PathBuf {
        self.place.path(&format!("proxy-{number}"))
    }

    /// `--members` of the `dovetaild` of a slot.
    pub fn members_argument(&self, of: u8) -> String {
        let founders = self.config.founders;
        let known = self.slots().filter(|slot| of > founders || *slot <= founders);
        let one = |slot| format!("{slot}={}", self.member_seen_from(MEMBER_HOST + of, slot));
        known.map(one).collect::<Vec<_>>().join(",")
    }

    /// How a member is started.
    pub fn member_config(&self, slot: u8) -> ProcessConfig {
        let docker = || format!("tcp://{}", self.stand_in_addr());
        let mut arguments: Vec<String> = [
            "--id",
            &slot.to_string(),
            "--listen",
            &self.member_addr(slot).to_string(),
            "--members",
            &self.members_argument(slot),
            "--admin",
            &self.member_admin_addr(slot).to_string(),
            "--docker",
            &self.config.docker.clone().unwrap_or_else(docker),
            "--data-dir",
            &self.member_data_dir(slot).to_string_lossy(),
            "--tls-dir",
            &self.tls_dir().join(format!("member-{slot}")).to_string_lossy(),
        ]
        .map(str::to_owned)
        .into();
        if self.config.config.is_some() {
            let file = self.config_file().to_string_lossy().into_owned();
            arguments.extend(["--config".to_owned(), file]);
        }
        arguments.extend(self.config.member_arguments.iter().cloned());
        let (name, host) = (format!("member-{slot}"), self.member_host(slot));
        let before = self.config.before.get(&slot).map_or(&[][..], Vec::as_slice);
        self.process_config(&name, host, before, &self.executables.dovetaild, arguments)
    }

    /// How a proxy is started.
    pub fn proxy_config(&self, number: u8) -> ProcessConfig {
        let mut arguments: Vec<String> = [
            "--name",
            &format!("proxy-{number}"),
            "--core",
            &self.core_seen_from(self.proxy_host(number)),
            "--http",
            &self.proxy_addr(number).to_string(),
            "--https",
            &self.proxy_tls_addr(number).to_string(),
            "--admin",
            &self.proxy_admin_addr(number).to_string(),
            "--data-dir",
            &self.proxy_data_dir(number).to_string_lossy(),
            "--tls-dir",
            &self.tls_dir().join("proxy").to_string_lossy(),
            "--secrets-dir",
            &self.secrets_dir().to_string_lossy(),
            "--service-cluster",
            self.config.service_clusters.get(&number).map_or("", String::as_str),
            "--access-log",
            "none",
        ]
        .map(str::to_owned)
        .into();
        arguments.extend(self.config.proxy_arguments.iter().cloned());
        let (name, host) = (format!("proxy-{number}"), self.proxy_host(number));
        self.process_config(&name, host, &[], &self.executables.proxy, arguments)
    }

    fn process_config(
        &self,
        name: &str,
        host: u8,
        before: &[OsString],
        executable: &Path,
        arguments: Vec<String>,
    ) -> ProcessConfig {
        let mut words: Vec<OsString> = Vec::new();
        // Each of them becomes the process itself, so signals reach whom they are meant for.
        if let Some(namespaces) = &self.config.namespaces {
            words.push("nsenter".into());
            words.extend(namespaces.enter(host));
        }
        words.extend(before.iter().cloned());
        words.push(executable.into());
        words.extend(arguments.into_iter().map(Into::into));
        let executable = words.remove(0).into();
        let log = self.place.path(&format!("{name}.log"));
        ProcessConfig { name: name.to_owned(), executable, arguments: words, log }
    }

    /// The last lines of every log, for a failure's report.
    pub fn log_tails(&mut self) -> String {
        let mut text = String::new();
        for process in self.members.iter().chain(&self.proxies).flatten() {
            let name = &process.config().name;
            text.push_str(&format!("--- {name}\n{}\n", process.log_tail()));
        }
        text
    }
}

impl Drop for Cluster {
    #[expect(clippy::print_stderr, reason = "a failed test's output is all that is left of it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails());
        }
    }
}
