//! What is measured: a quorum that acknowledges a write once a majority has it on disk.

use std::time::Duration;

use dovetail_jepsen::cluster::Cluster;
use dovetail_jepsen::operator::Operator;
use dovetail_jepsen::supervisor::Process;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::admin_client::AdminClient;
use tonic::transport::Channel;

use crate::etcd::{self, Etcd};

/// How long everything may take to come back after a kill.
const BACK_DEADLINE: Duration = Duration::from_secs(30);

/// A quorum of three under measurement.
#[derive(Debug)]
pub(crate) enum Target {
    Dovetail { cluster: Box<Cluster>, operator: Operator },
    Etcd(Box<Etcd>),
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Writes,
    /// Linearizable ones.
    Reads,
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Reads => "reads",
        }
    }
}

/// Writes and reads through one member.
#[derive(Clone, Debug)]
pub(crate) enum Writer {
    Dovetail { client: AdminClient<Channel>, operator: Operator },
    Etcd { channel: Channel },
}

impl Target {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Dovetail { .. } => "dovetail",
            Self::Etcd(_) => "etcd",
        }
    }

    pub(crate) fn slots(&self) -> Vec<u8> {
        match self {
            Self::Dovetail { cluster, .. } => cluster.slots().collect(),
            Self::Etcd(etcd) => etcd.slots().collect(),
        }
    }

    pub(crate) async fn leader(&self) -> anyhow::Result<u8> {
        match self {
            Self::Dovetail { cluster, .. } => Ok(cluster.leader(BACK_DEADLINE).await?),
            Self::Etcd(etcd) => etcd.leader().await,
        }
    }

    /// A writer on a connection of its own.
    pub(crate) fn writer(&self, slot: u8) -> anyhow::Result<Writer> {
        Ok(match self {
            Self::Dovetail { cluster, operator } => Writer::Dovetail {
                client: operator.admin(&cluster.member_addr(slot).to_string())?,
                operator: operator.clone(),
            },
            Self::Etcd(etcd) => Writer::Etcd { channel: etcd.channel(slot)? },
        })
    }

    /// CPU time of all members together.
    pub(crate) fn cpu(&mut self) -> Duration {
        match self {
            Self::Dovetail { cluster, .. } => {
                let slots: Vec<u8> = cluster.slots().collect();
                let cpu = |slot| cluster.member(slot).map_or(Duration::ZERO, |member| member.cpu());
                slots.into_iter().map(cpu).sum()
            }
            Self::Etcd(etcd) => etcd.processes().map(Process::cpu).sum(),
        }
    }

    pub(crate) fn kill(&mut self, slot: u8) -> anyhow::Result<()> {
        match self {
            Self::Dovetail { cluster, .. } => cluster.kill_member(slot),
            Self::Etcd(etcd) => etcd.member(slot)?.kill(),
        }
        Ok(())
    }

    /// Has `to` lead instead of the leader, and returns once it was told so.
    pub(crate) async fn transfer(&self, to: u8) -> anyhow::Result<()> {
        match self {
            Self::Dovetail { cluster, operator } => {
                let leader = self.leader().await?;
                let mut client = operator.admin(&cluster.member_addr(leader).to_string())?;
                let command = pb::ChangeMembers {
                    change: pb::MemberChange::TransferLeader.into(),
                    members: vec![to.into()],
                    address: String::new(),
                };
                let request_id = format!("bench-transfer-{:016x}", fastrand::u64(..));
                let command = Some(command);
                let request = pb::ChangeMembersRequest { request_id, dry_run: false, command };
                client.change_members(request).await?;
                Ok(())
            }
            Self::Etcd(etcd) => etcd.move_leader(to).await,
        }
    }

    /// The most memory that a member holds, in bytes.
    pub(crate) fn memory(&mut self, slot: u8) -> u64 {
        match self {
            Self::Dovetail { cluster, .. } => {
                cluster.member(slot).map_or(0, |member| member.resident_bytes())
            }
            Self::Etcd(etcd) => etcd.member(slot).map_or(0, |member| member.resident_bytes()),
        }
    }

    /// Starts a killed member and waits until all three stand at the same place.
    pub(crate) async fn bring_back(&mut self, slot: u8) -> anyhow::Result<()> {
        match self {
            Self::Dovetail { cluster, .. } => {
                cluster.start_member(slot)?;
                cluster.agreement(BACK_DEADLINE).await?;
            }
            Self::Etcd(etcd) => {
                etcd.member(slot)?.start_again()?;
                etcd.ready().await?;
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Does one piece of work.
    pub(crate) async fn work(
        &mut self,
        work: Work,
        key: usize,
        text: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        match work {
            Work::Writes => self.write(key, text, timeout).await,
            Work::Reads => self.read(timeout).await,
        }
    }

    /// Returns once a small linearizable read is answered.
    async fn read(&mut self, timeout: Duration) -> Result<(), String> {
        match self {
            Self::Dovetail { client, .. } => {
                let read = client.drains(pb::DrainsRequest::default());
                match tokio::time::timeout(timeout, read).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(status)) => Err(status.message().to_owned()),
                    Err(_) => Err(format!("no answer within {timeout:?}")),
                }
            }
            Self::Etcd { channel } => etcd::get(channel.clone(), timeout).await,
        }
    }

    /// Returns once the write is acknowledged.
    pub(crate) async fn write(
        &mut self,
        key: usize,
        text: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        match self {
            Self::Dovetail { client, operator } => {
                operator.annotate(client, text, timeout).await.map(|_| ())
            }
            Self::Etcd { channel } => etcd::put(channel.clone(), key, text, timeout).await,
        }
    }
}
