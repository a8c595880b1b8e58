//! Faults of members and of their disks.

use std::time::{Duration, Instant};

use dovetail_jepsen::history::Nemesis;

use super::Field;

/// How long a member may take to end by itself.
const END: Duration = Duration::from_secs(20);
/// How long a change of members may take, with the disk that has to catch up.
const REPLACED: Duration = Duration::from_secs(40);

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
            self.disks.power_cut(*slot)?;
        }
        let mut kept = Vec::new();
        for slot in victims {
            self.cluster.kill_member(*slot);
            if !self.disks.power_back(*slot)? {
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

    /// A member whose disk is full may end; it is started again when there is room.
    pub(super) async fn disk_full(
        &mut self,
        victims: &[u8],
        hold: Duration,
    ) -> anyhow::Result<Nemesis> {
        for slot in victims {
            self.disks.fill(*slot)?;
        }
        tokio::time::sleep(hold).await;
        for slot in victims {
            self.disks.empty(*slot)?;
            if let Err(ended) = self.cluster.member(*slot) {
                let line = ended.to_string().lines().next().unwrap_or_default().to_owned();
                self.world.recorder.note(format!("with a full disk {line}"));
                self.cluster.start_member(*slot)?;
            }
        }
        Ok(Nemesis::Installed)
    }

    /// A follower loses its disk; the new one takes its place.
    pub(super) async fn replace(&mut self) -> anyhow::Result<Nemesis> {
        let begun = Instant::now();
        // Who is replaced must not be needed for a quorum, so all others have to be there.
        let ready = self.cluster.agreement_of_members(REPLACED).await;
        let leader = match ready {
            Ok(leader) => leader,
            Err(unmet) => return Ok(Nemesis::Indeterminate { why: unmet.to_string() }),
        };
        let mut others: Vec<u8> = self.cluster.slots().filter(|slot| *slot != leader).collect();
        self.random.shuffle(&mut others);
        let Some(slot) = others.first().copied() else {
            return Ok(Nemesis::Skipped { why: "there is one member only".to_owned() });
        };
        self.cluster.wipe_member(slot)?;
        self.cluster.start_member(slot)?;
        let name = slot.to_string();
        let mut last = String::new();
        while begun.elapsed() < REPLACED * 2 {
            last = match self.cluster.dovetail(&["member", "replace", &name]).await {
                Ok(done) if done.code == Some(0) => return Ok(Nemesis::Installed),
                Ok(done) => done.stderr.trim().to_owned(),
                Err(error) => format!("{error:#}"),
            };
            self.world.recorder.note(format!("member replace {slot}: {last}"));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(Nemesis::Indeterminate { why: format!("member {slot} was not replaced: {last}") })
    }

    /// Every member ends well and is started again, one after the other.
    pub(super) async fn rolling(&mut self) -> anyhow::Result<Nemesis> {
        let mut killed = Vec::new();
        for slot in self.cluster.slots() {
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
        Ok(if killed.is_empty() {
            Nemesis::Installed
        } else {
            Nemesis::Indeterminate { why: format!("members {killed:?} did not end by themselves") }
        })
    }
}

/// What the kernel says: the state behind the command's closing parenthesis.
pub(super) fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
}
