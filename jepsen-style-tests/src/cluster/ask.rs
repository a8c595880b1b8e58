//! Asking a cluster through `dovetail`, as an operator would.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use dovetail_proto::v1 as pb;
use serde::de::DeserializeOwned;

use super::{COMMAND_DEADLINE, Cluster};
use crate::operator::Operator;
use crate::status::{Agreement, Problem, Routes, Status};
use crate::supervisor::{Finished, run_to_end};
use crate::{NotReached, reached};

impl Cluster {
    /// `dovetail VERB …` with the operator's certificate and all members as `--core`.
    pub async fn dovetail(&self, verb: &[&str]) -> anyhow::Result<Finished> {
        self.dovetail_at(&self.core(), verb).await
    }

    /// `dovetail VERB …` that knows the members of `core` alone.
    pub async fn dovetail_at(&self, core: &str, verb: &[&str]) -> anyhow::Result<Finished> {
        let mut command = Command::new(&self.executables.dovetail);
        command.args(["--core", core]).arg("--tls-dir").arg(self.operator_dir()).args(verb);
        run_to_end(command, COMMAND_DEADLINE).await.context("dovetail")
    }

    async fn json<T: DeserializeOwned>(&self, core: &str, verb: &[&str]) -> Result<T, String> {
        let verb = [&["-o", "json"], verb].concat();
        let done = self.dovetail_at(core, &verb).await.map_err(|error| format!("{error:#}"))?;
        if done.code != Some(0) {
            let code = done.code.map_or("a signal".to_owned(), |code| format!("exit {code}"));
            return Err(format!("dovetail {}: {code}: {}", verb.join(" "), done.stderr.trim()));
        }
        serde_json::from_str(&done.stdout)
            .map_err(|error| format!("dovetail {}: {error} in {}", verb.join(" "), done.stdout))
    }

    pub async fn status(&self) -> Result<Status, String> {
        self.json(&self.core(), &["status"]).await
    }

    /// The status as one member gives it.
    pub async fn status_at(&self, slot: u8) -> Result<Status, String> {
        self.json(&self.member_addr(slot).to_string(), &["status"]).await
    }

    pub async fn routes(&self) -> Result<Routes, String> {
        self.json(&self.core(), &["routes"]).await
    }

    /// The routes as one member gives them.
    pub async fn routes_at(&self, slot: u8) -> Result<Routes, String> {
        self.json(&self.member_addr(slot).to_string(), &["routes"]).await
    }

    /// Revision and digest by service cluster, as one member derived them by itself.
    pub async fn local_snapshots(
        &self,
        slot: u8,
    ) -> Result<BTreeMap<String, (u64, String)>, String> {
        let operator =
            Operator::load(&self.operator_dir()).map_err(|error| format!("{error:#}"))?;
        let addr = self.member_addr(slot).to_string();
        let status = operator.local_status(&addr, Duration::from_secs(2)).await?;
        let one = |of: pb::ServiceClusterStatus| (of.name, (of.revision, of.digest));
        Ok(status.service_clusters.into_iter().map(one).collect())
    }

    pub async fn problems(&self) -> Result<Vec<Problem>, String> {
        self.json(&self.core(), &["problems"]).await
    }

    /// Waits until somebody leads.
    pub async fn leader(&self, deadline: Duration) -> Result<u8, NotReached> {
        reached(deadline, || async {
            let leader = self.status().await?.leader().ok_or("no leader is known")?;
            u8::try_from(leader).map_err(|_| format!("the leader is member {leader}"))
        })
        .await
    }

    /// Waits until all members and all proxies stand at the same place.
    pub async fn agreement(&self, deadline: Duration) -> Result<Agreement, NotReached> {
        let (members, proxies) = (self.members.len(), self.proxies.len());
        reached(deadline, || async {
            let agreement = self.status().await?.agreement(members, proxies);
            if agreement.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            agreement
        })
        .await
    }

    /// Waits until somebody leads all members, and they answer; who it is.
    pub async fn agreement_of_members(&self, deadline: Duration) -> Result<u8, NotReached> {
        self.agreement_of(self.founders().count(), deadline).await
    }

    /// Waits until somebody leads so many members, and they answer; who it is.
    pub async fn agreement_of(&self, members: usize, deadline: Duration) -> Result<u8, NotReached> {
        reached(deadline, || async {
            let status = self.status().await?;
            let away = status.members.iter().find(|member| !member.reachable);
            match (status.leader(), away) {
                (Some(leader), None) if status.members.len() == members => {
                    u8::try_from(leader).map_err(|_| format!("the leader is member {leader}"))
                }
                (None, _) => Err("no leader is known".to_owned()),
                (_, Some(away)) => Err(format!("member {} is not reachable", away.id)),
                (Some(_), None) => Err(format!("{} members are known", status.members.len())),
            }
        })
        .await
    }

    /// Waits until `host` is answered through every proxy; by whom, in their order.
    pub async fn routed(&self, host: &str, deadline: Duration) -> Result<Vec<String>, NotReached> {
        reached(deadline, || async {
            let mut names = Vec::new();
            for proxy in self.proxy_addrs() {
                names.push(crate::http::who_answers(proxy, host, "/").await?);
            }
            Ok(names)
        })
        .await
    }
}
