//! Faults of members and of their disks.

use std::time::Duration;

use dovetail_jepsen::history::Nemesis;

use super::Field;

impl Field {
    pub(super) async fn kill(&mut self, victims: &[u8], hold: Duration) -> anyhow::Result<Nemesis> {
        for slot in victims {
            // Its end is waited for: there is no doubt about it.
            self.cluster.kill_member(*slot);
        }
        tokio::time::sleep(hold).await;
        for slot in victims {
            self.cluster.start_member(*slot)?;
        }
        Ok(Nemesis::Installed)
    }

    pub(super) async fn pause(
        &mut self,
        victims: &[u8],
        hold: Duration,
    ) -> anyhow::Result<Nemesis> {
        for slot in victims {
            self.cluster.member(*slot)?.pause();
        }
        tokio::time::sleep(hold).await;
        let mut running = Vec::new();
        for slot in victims {
            let member = self.cluster.member(*slot)?;
            if !is_stopped(member.pid()) {
                running.push(*slot);
            }
            member.resume();
        }
        Ok(if running.is_empty() {
            Nemesis::Installed
        } else {
            Nemesis::Indeterminate { why: format!("members {running:?} were not stopped") }
        })
    }

    /// All victims lose power at nearly the same moment.
    pub(super) async fn power_cut(
        &mut self,
        victims: &[u8],
        hold: Duration,
    ) -> anyhow::Result<Nemesis> {
        for slot in victims {
            self.cluster.member(*slot)?.pause();
        }
        for slot in victims {
            self.own_disks()?.power_cut(*slot)?;
        }
        let mut kept = Vec::new();
        for slot in victims {
            self.cluster.kill_member(*slot);
            if !self.own_disks()?.power_back(*slot).await? {
                kept.push(*slot);
            }
        }
        tokio::time::sleep(hold / 2).await;
        for slot in victims {
            self.cluster.start_member(*slot)?;
        }
        Ok(if kept.is_empty() {
            Nemesis::Installed
        } else {
            Nemesis::Indeterminate { why: format!("members {kept:?} lost nothing") }
        })
    }
}

/// What the kernel says: the state behind the command's closing parenthesis.
pub(super) fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
}
