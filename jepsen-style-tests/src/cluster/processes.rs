//! The processes of a cluster: started, looked at, killed.

use anyhow::{Context as _, bail};

use super::Cluster;
use crate::supervisor::{Executables, Process, ProcessConfig};

impl Cluster {
    /// Whoever is started from here on is of this build.
    pub fn use_executables(&mut self, executables: Executables) {
        self.executables = executables;
    }

    /// Starts a member, anew if it runs.
    pub fn start_member(&mut self, slot: u8) -> anyhow::Result<()> {
        let config = self.member_config(slot);
        start(&mut self.members, slot, config)
    }

    /// Starts a proxy, anew if it runs.
    pub fn start_proxy(&mut self, number: u8) -> anyhow::Result<()> {
        let config = self.proxy_config(number);
        start(&mut self.proxies, number, config)
    }

    /// Starts everything that does not run.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        for slot in self.slots() {
            if self.member(slot).is_err() {
                self.start_member(slot)?;
            }
        }
        for number in self.proxy_numbers() {
            if self.proxy(number).is_err() {
                self.start_proxy(number)?;
            }
        }
        Ok(())
    }

    /// The process of a member that was started and has not ended.
    pub fn member(&mut self, slot: u8) -> anyhow::Result<&mut Process> {
        running(&mut self.members, slot, "member")
    }

    /// The process of a proxy that was started and has not ended.
    pub fn proxy(&mut self, number: u8) -> anyhow::Result<&mut Process> {
        running(&mut self.proxies, number, "proxy")
    }

    /// The process of a proxy, ended or not.
    pub fn proxy_mut(&mut self, number: u8) -> anyhow::Result<&mut Process> {
        started(&mut self.proxies, number, "proxy")
    }

    /// The process of a member, ended or not.
    pub fn member_mut(&mut self, slot: u8) -> anyhow::Result<&mut Process> {
        started(&mut self.members, slot, "member")
    }

    /// `kill -9`; nothing when it does not run.
    pub fn kill_member(&mut self, slot: u8) {
        if let Some(process) = self.members.get_mut(position(slot)) {
            *process = None;
        }
    }

    /// `kill -9`; nothing when it does not run.
    pub fn kill_proxy(&mut self, number: u8) {
        if let Some(process) = self.proxies.get_mut(position(number)) {
            *process = None;
        }
    }

    /// Takes a member's disk away, as a lost machine would.
    pub fn wipe_member(&mut self, slot: u8) -> anyhow::Result<()> {
        self.kill_member(slot);
        let folder = self.member_data_dir(slot);
        std::fs::remove_dir_all(&folder).with_context(|| format!("wipe {}", folder.display()))
    }
}

fn position(number: u8) -> usize {
    usize::from(number.saturating_sub(1))
}

fn start(
    processes: &mut [Option<Process>],
    number: u8,
    config: ProcessConfig,
) -> anyhow::Result<()> {
    let Some(place) = processes.get_mut(position(number)) else {
        bail!("{} is not part of this cluster", config.name);
    };
    // The old one must be gone before the new one asks for its ports and its disk.
    *place = None;
    let name = config.name.clone();
    *place = Some(Process::start(config).with_context(|| format!("start {name}"))?);
    Ok(())
}

fn started<'p>(
    processes: &'p mut [Option<Process>],
    number: u8,
    kind: &str,
) -> anyhow::Result<&'p mut Process> {
    let process = processes.get_mut(position(number)).and_then(Option::as_mut);
    process.with_context(|| format!("{kind} {number} is not started"))
}

fn running<'p>(
    processes: &'p mut [Option<Process>],
    number: u8,
    kind: &str,
) -> anyhow::Result<&'p mut Process> {
    let process = started(processes, number, kind)?;
    if let Some(status) = process.exit_status() {
        bail!("{kind} {number} ended with {status}:\n{}", process.log_tail());
    }
    Ok(process)
}
