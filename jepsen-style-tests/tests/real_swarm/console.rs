//! The system as an operator sees it from outside the Swarm.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dovetail_jepsen::operator::Operator;
use dovetail_jepsen::status::{Agreement, Routes, Status};
use serde::de::DeserializeOwned;

use crate::lab::output;

const DEADLINE: Duration = Duration::from_secs(10);
/// Where a manager offers its member, as `deploy/stack.yml` has it.
const CORE_PORT: u16 = 7443;

/// The command line that the README's lines made, with the operator's identity.
#[derive(Debug)]
pub(crate) struct Console {
    dovetail: PathBuf,
    tls_dir: PathBuf,
    operator: Operator,
    /// Where the members are, first to last.
    members: Vec<String>,
}

impl Console {
    /// From the folder `deploy` after the README's lines, and the managers' addresses.
    pub(crate) fn new(deploy: &Path, managers: impl Iterator<Item = IpAddr>) -> Self {
        let tls_dir = deploy.join("pki/operator");
        let operator = Operator::load(&tls_dir).unwrap();
        let members = managers.map(|address| format!("{address}:{CORE_PORT}")).collect();
        Self { dovetail: deploy.join("bin/dovetail"), tls_dir, operator, members }
    }

    async fn ask<T: DeserializeOwned>(&self, verb: &str) -> Result<T, String> {
        let mut command = tokio::process::Command::new(&self.dovetail);
        command.args(["--core", &self.members.join(","), "-o", "json", "--tls-dir"]);
        command.arg(&self.tls_dir).arg(verb);
        let json = output(command, DEADLINE).await?;
        serde_json::from_str(&json).map_err(|error| format!("{verb}: {error} in {json}"))
    }

    /// Who leads.
    pub(crate) async fn leader(&self) -> Result<u64, String> {
        self.ask::<Status>("status").await?.leader().ok_or_else(|| "no leader".to_owned())
    }

    /// All members have applied everything, and `proxies` proxies follow.
    pub(crate) async fn all_follow(&self, proxies: usize) -> Result<Agreement, String> {
        let status = self.ask::<Status>("status").await?;
        status.agreement(self.members.len(), proxies)
    }

    /// Each member, asked by itself, derived the snapshots on which `agreed`.
    pub(crate) async fn each_member_has(&self, agreed: &Agreement) -> Result<(), String> {
        for member in &self.members {
            let own = self.operator.local_status(member, DEADLINE).await?;
            for cluster in own.service_clusters {
                let seen = Some(&(cluster.revision, cluster.digest));
                if agreed.service_clusters.get(&cluster.name) != seen {
                    return Err(format!("{member} has {seen:?}, not as {agreed:?}"));
                }
            }
        }
        Ok(())
    }

    /// The route of `host` has `count` upstreams, all of them active.
    pub(crate) async fn has_upstreams(&self, host: &str, count: usize) -> Result<(), String> {
        let routes = self.ask::<Routes>("routes").await?;
        let route = routes.find(host, "/").ok_or_else(|| format!("no route for {host}"))?;
        let (active, draining) = (route.upstreams("active"), route.upstreams("draining"));
        if active.len() == count && draining.is_empty() {
            return Ok(());
        }
        Err(format!("{host}: active {active:?}, draining {draining:?}"))
    }
}
