//! What lies between machines: namespaces, or relays on loopback where there is no root.

use dovetail_jepsen::cluster::Cluster;
use dovetail_jepsen::namespaces::Namespaces;
use dovetail_jepsen::relays::Relays;

/// The wires of a run.
#[derive(Clone, Debug)]
pub(crate) enum Wires {
    Namespaces(Namespaces),
    Relays(Relays),
}

impl Wires {
    /// Puts every machine of a cluster where it can be cut off.
    pub(crate) async fn connect(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let members: Vec<u8> = cluster.slots().map(|slot| cluster.member_host(slot)).collect();
        let proxies = cluster.proxy_numbers().map(|number| cluster.proxy_host(number));
        let all: Vec<u8> = members.iter().copied().chain(proxies).collect();
        match self {
            Self::Namespaces(namespaces) => all.iter().try_for_each(|host| namespaces.add(*host)),
            Self::Relays(relays) => {
                for slot in cluster.slots() {
                    let (to, target) = (cluster.member_host(slot), cluster.member_addr(slot));
                    for from in all.iter().copied().filter(|from| *from != to) {
                        relays.open(from, to, target).await?;
                    }
                }
                Ok(())
            }
        }
    }

    /// What one machine sends does not reach another any more; the other way it does.
    pub(crate) fn cut(&self, from: u8, to: u8) -> anyhow::Result<()> {
        match self {
            Self::Namespaces(namespaces) => namespaces.cut(from, to),
            Self::Relays(relays) => {
                relays.cut(from, to);
                Ok(())
            }
        }
    }

    /// So many percent of the packets to a machine are lost.
    pub(crate) fn lose(&self, to: u8, percent: u8) -> anyhow::Result<()> {
        match self {
            Self::Namespaces(namespaces) => namespaces.lose(to, percent),
            Self::Relays(_) => anyhow::bail!("relays carry no packets that could be lost"),
        }
    }

    /// What a machine sends waits for about so long; by what that was done.
    pub(crate) fn slow(&self, from: u8, millis: u16) -> anyhow::Result<&'static str> {
        match self {
            Self::Namespaces(namespaces) => namespaces.slow(from, millis),
            Self::Relays(relays) => {
                relays.slow(from, millis);
                Ok("relay")
            }
        }
    }

    /// Ends all cuts and losses; how much they stopped or held back.
    pub(crate) fn heal(&self) -> anyhow::Result<u64> {
        match self {
            Self::Namespaces(namespaces) => namespaces.heal(),
            Self::Relays(relays) => Ok(relays.heal()),
        }
    }

    /// Ends all slowness; how much had to wait.
    pub(crate) fn quicken(&self) -> anyhow::Result<u64> {
        match self {
            Self::Namespaces(namespaces) => namespaces.quicken(),
            Self::Relays(relays) => Ok(relays.quicken()),
        }
    }
}
