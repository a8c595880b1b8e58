//! Cuts between machines, losses on the way to them, and slow lines.

use std::time::Duration;

use dovetail_jepsen::history::Nemesis;

use super::{Fault, Field};

impl Field {
    /// Cuts or loses as `fault` says, for a while.
    pub(super) async fn links(&mut self, fault: Fault, hold: Duration) -> anyhow::Result<Nemesis> {
        let mut members: Vec<u8> =
            self.cluster.founders().map(|slot| self.cluster.member_host(slot)).collect();
        let proxies: Vec<u8> =
            self.cluster.proxy_numbers().map(|number| self.cluster.proxy_host(number)).collect();
        self.random.shuffle(&mut members);
        match (fault, members.as_slice()) {
            (Fault::Ring, members) if members.len() < 5 => {
                return Ok(Nemesis::Skipped { why: "three members are a ring already".to_owned() });
            }
            (Fault::Ring, members) => {
                let around = members.iter().cycle().skip(1);
                let neighbours: Vec<(u8, u8)> =
                    members.iter().zip(around).map(|(one, next)| (*one, *next)).collect();
                for (one, other) in pairs(members) {
                    let near = |pair: &(u8, u8)| *pair == (one, other) || *pair == (other, one);
                    if !neighbours.iter().any(near) {
                        self.both_ways(one, other)?;
                    }
                }
            }
            (Fault::Loss, members) => {
                for host in members {
                    let percent = self.random.u8(5..40);
                    self.wires.lose(*host, percent)?;
                }
            }
            (Fault::OneWay, [mute, others @ ..]) => {
                for other in others {
                    self.wires.cut(*mute, *other)?;
                }
            }
            (Fault::IsolateLeader, members) => {
                let leader = self.leader().await.map(|slot| self.cluster.member_host(slot));
                let leader = leader.unwrap_or_else(|| members.first().copied().unwrap_or_default());
                let rest = members.iter().chain(&proxies).filter(|host| **host != leader);
                // Some proxies stay with it, and have to notice by themselves.
                let rest: Vec<u8> = rest.copied().collect();
                for other in rest {
                    if members.contains(&other) || self.random.bool() {
                        self.both_ways(leader, other)?;
                    }
                }
            }
            (Fault::Bridge, [middle, others @ ..]) => {
                let (left, right) = others.split_at(others.len() / 2);
                let mut everybody: Vec<(u8, bool)> = Vec::new();
                everybody.extend(left.iter().map(|host| (*host, true)));
                everybody.extend(right.iter().map(|host| (*host, false)));
                everybody.extend(proxies.iter().map(|host| (*host, self.random.bool())));
                debug_assert!(!everybody.iter().any(|(host, _)| host == middle));
                self.apart(&everybody)?;
            }
            (_, members) => {
                let (left, right) = members.split_at(members.len() / 2);
                let mut everybody: Vec<(u8, bool)> = Vec::new();
                everybody.extend(left.iter().map(|host| (*host, true)));
                everybody.extend(right.iter().map(|host| (*host, false)));
                everybody.extend(proxies.iter().map(|host| (*host, self.random.bool())));
                self.apart(&everybody)?;
            }
        }
        tokio::time::sleep(hold).await;
        let stopped = self.wires.heal()?;
        Ok(if stopped > 0 {
            Nemesis::Installed
        } else {
            Nemesis::Indeterminate { why: "no packet was stopped".to_owned() }
        })
    }

    /// What each member sends waits before it leaves.
    pub(super) async fn slow(&mut self, hold: Duration) -> anyhow::Result<Nemesis> {
        let mut kinds = Vec::new();
        for slot in self.cluster.founders() {
            let millis = self.random.u16(20..200);
            kinds.push(self.wires.slow(self.cluster.member_host(slot), millis)?);
        }
        tokio::time::sleep(hold).await;
        let waited = self.wires.quicken()?;
        self.world.recorder.note(format!("slow lines by {}: {waited} packets", kinds.join(", ")));
        Ok(if waited > 0 {
            Nemesis::Installed
        } else {
            Nemesis::Indeterminate { why: "no packet had to wait".to_owned() }
        })
    }

    /// The leader as any member tells within a moment.
    pub(super) async fn leader(&self) -> Option<u8> {
        for member in &self.world.members {
            let status = self.world.operator.status(member, Duration::from_secs(1)).await;
            let leader = status.ok().and_then(|status| u8::try_from(status.leader).ok());
            if let Some(leader) = leader.filter(|leader| *leader > 0) {
                return Some(leader);
            }
        }
        None
    }

    fn both_ways(&self, one: u8, other: u8) -> anyhow::Result<()> {
        self.wires.cut(one, other)?;
        self.wires.cut(other, one)
    }

    /// Who is on the one side and who is on the other do not hear each other.
    fn apart(&self, everybody: &[(u8, bool)]) -> anyhow::Result<()> {
        for (one, side) in everybody {
            for (other, _) in
                everybody.iter().filter(|(other, theirs)| theirs != side && other > one)
            {
                self.both_ways(*one, *other)?;
            }
        }
        Ok(())
    }
}

/// Each two of them once.
fn pairs(hosts: &[u8]) -> Vec<(u8, u8)> {
    let after = |at: usize| hosts.iter().skip(at + 1);
    let all = hosts.iter().enumerate();
    all.flat_map(|(at, one)| after(at).map(move |other| (*one, *other))).collect()
}
