//! Every process in turn ends well and is started again, of the same build or of another.

use std::time::Duration;

use dovetail_jepsen::history::Nemesis;
use dovetail_jepsen::supervisor::Executables;

use super::Field;

/// How long a process may take to end by itself, and to be there again.
const END: Duration = Duration::from_secs(20);

impl Field {
    /// Every member ends well and is started again, one after the other.
    pub(super) async fn rolling(&mut self) -> anyhow::Result<Nemesis> {
        let killed = self.turn_members_over().await?;
        Ok(ended_well(&killed))
    }

    /// All of them of the other build, and then of this one again.
    pub(super) async fn upgrade(&mut self, hold: Duration) -> anyhow::Result<Nemesis> {
        let own = self.cluster.executables().clone();
        let Some(other) = self.other_build.clone() else {
            return Ok(Nemesis::Skipped { why: "there is no --upgrade-to".to_owned() });
        };
        // Who orders and looks stays the same.
        let other = Executables { dovetail: own.dovetail.clone(), ..other };
        let mut killed = Vec::new();
        for build in [other, own] {
            self.cluster.use_executables(build.clone());
            killed.extend(self.turn_members_over().await?);
            self.turn_proxies_over().await?;
            let strangers = self.not_of(&build)?;
            if !strangers.is_empty() {
                let why = format!("not of {}: {strangers:?}", build.dovetaild.display());
                return Ok(Nemesis::Indeterminate { why });
            }
            let from = build.dovetaild.display().to_string();
            self.world.recorder.note(format!("all members and proxies run from {from}"));
            tokio::time::sleep(hold).await;
        }
        Ok(ended_well(&killed))
    }

    /// The members that had to be killed.
    async fn turn_members_over(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut killed = Vec::new();
        for slot in self.cluster.founders() {
            self.cluster.member(slot)?.terminate();
            if self.cluster.member_mut(slot)?.end(END).await.is_none() {
                killed.push(slot);
                self.cluster.kill_member(slot);
            }
            self.cluster.start_member(slot)?;
            if let Err(unmet) = self.cluster.agreement_of_members(END).await {
                self.world.recorder.note(format!("rolling, after member {slot}: {unmet}"));
            }
        }
        Ok(killed)
    }

    async fn turn_proxies_over(&mut self) -> anyhow::Result<()> {
        for number in self.cluster.proxy_numbers() {
            self.down(number);
            self.cluster.proxy(number)?.terminate();
            // One that does not end by itself is killed by its start.
            self.cluster.proxy_mut(number)?.end(END).await;
            self.cluster.start_proxy(number)?;
            self.serves(number).await?;
        }
        Ok(())
    }

    /// The processes that run from another file than they should.
    fn not_of(&mut self, build: &Executables) -> anyhow::Result<Vec<String>> {
        let (member, proxy) = (build.dovetaild.canonicalize()?, build.proxy.canonicalize()?);
        let mut processes = Vec::new();
        for slot in self.cluster.founders() {
            processes.push((format!("member {slot}"), self.cluster.member(slot)?.pid(), &member));
        }
        for number in self.cluster.proxy_numbers() {
            processes.push((format!("proxy {number}"), self.cluster.proxy(number)?.pid(), &proxy));
        }
        let mut strangers = Vec::new();
        for (name, pid, meant) in processes {
            if std::fs::read_link(format!("/proc/{pid}/exe"))? != *meant {
                strangers.push(name);
            }
        }
        Ok(strangers)
    }
}

fn ended_well(killed: &[u8]) -> Nemesis {
    if killed.is_empty() {
        Nemesis::Installed
    } else {
        Nemesis::Indeterminate { why: format!("members {killed:?} did not end by themselves") }
    }
}
