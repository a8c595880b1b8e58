//! What `dovetail -o json` prints, as its contract has it; more fields may come.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `dovetail status`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub cluster_id: String,
    pub leader: Option<u64>,
    pub term: u64,
    pub index: u64,
    pub service_clusters: Vec<ServiceCluster>,
    pub members: Vec<Member>,
    pub proxies: Vec<Proxy>,
    pub problems: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ServiceCluster {
    pub name: String,
    pub revision: u64,
    pub digest: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    pub id: u64,
    pub address: String,
    pub role: String,
    pub applied: u64,
    pub reachable: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Proxy {
    pub name: String,
    pub address: String,
    pub service_cluster: String,
    pub revision: u64,
    pub digest: String,
    pub connected: bool,
}

/// `dovetail routes`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Routes {
    pub service_cluster: String,
    pub revision: u64,
    pub digest: String,
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Route {
    pub host: String,
    pub path: String,
    pub tls: String,
    pub services: Vec<RouteService>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RouteService {
    pub name: String,
    pub weight: u32,
    pub upstreams: Vec<RouteUpstream>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RouteUpstream {
    pub address: String,
    pub state: String,
}

/// One of `dovetail problems`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    pub service: String,
    pub label: String,
    pub value: String,
    pub reason: String,
    pub since_index: u64,
}

/// Where everybody stands when all agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub leader: u64,
    pub index: u64,
    /// Revision and digest by service cluster.
    pub service_clusters: BTreeMap<String, (u64, String)>,
}

impl Status {
    /// Who leads, of whom this member knows.
    pub fn leader(&self) -> Option<u64> {
        self.leader.filter(|slot| *slot != 0)
    }

    /// All `members` are there and have applied everything, and all `proxies` are
    /// connected and follow the newest snapshot of their service cluster.
    pub fn agreement(&self, members: usize, proxies: usize) -> Result<Agreement, String> {
        let leader = self.leader().ok_or("no leader is known")?;
        if self.members.len() != members {
            return Err(format!("{} of {members} members are known", self.members.len()));
        }
        for member in &self.members {
            if !member.reachable {
                return Err(format!("member {} is not reachable", member.id));
            }
            if member.applied != self.index {
                let (id, applied, index) = (member.id, member.applied, self.index);
                return Err(format!("member {id} has applied {applied} of {index}"));
            }
        }
        let connected = self.proxies.iter().filter(|proxy| proxy.connected).count();
        if connected != proxies {
            return Err(format!("{connected} of {proxies} proxies are connected"));
        }
        let service_clusters: BTreeMap<_, _> = self
            .service_clusters
            .iter()
            .map(|one| (one.name.clone(), (one.revision, one.digest.clone())))
            .collect();
        for proxy in self.proxies.iter().filter(|proxy| proxy.connected) {
            let Some((revision, digest)) = service_clusters.get(&proxy.service_cluster) else {
                let of = &proxy.service_cluster;
                return Err(format!("proxy {} follows an unknown cluster {of:?}", proxy.name));
            };
            if (proxy.revision, &proxy.digest) != (*revision, digest) {
                return Err(format!(
                    "proxy {} is at revision {} with digest {}, not at {revision} with {digest}",
                    proxy.name, proxy.revision, proxy.digest
                ));
            }
        }
        Ok(Agreement { leader, index: self.index, service_clusters })
    }
}

impl Routes {
    /// The route of `host` and `path`.
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.host == host && route.path == path)
    }
}

impl Route {
    /// The addresses of all its upstreams in `state`.
    pub fn upstreams(&self, state: &str) -> Vec<&str> {
        let all = self.services.iter().flat_map(|service| &service.upstreams);
        all.filter(|upstream| upstream.state == state).map(|u| u.address.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(applied: u64, digest: &str, connected: bool) -> Status {
        serde_json::from_value(serde_json::json!({
            "cluster_id": "c", "leader": 1, "term": 1, "index": 7, "problems": 0, "more": true,
            "service_clusters": [{"name": "", "revision": 5, "digest": "aa"}],
            "members": [{"id": 1, "address": "a:1", "role": "leader", "applied": applied, "reachable": true}],
            "proxies": [{"name": "p", "address": "", "service_cluster": "", "revision": 5,
                         "digest": digest, "connected": connected}],
        }))
        .unwrap()
    }

    #[test]
    fn agreement_needs_everybody_at_the_same_place() {
        let agreed = status(7, "aa", true).agreement(1, 1).unwrap();
        assert_eq!(agreed.service_clusters[""], (5, "aa".to_owned()));
        for (unmet, reason) in [
            (status(6, "aa", true).agreement(1, 1), "member 1 has applied 6 of 7"),
            (status(7, "bb", true).agreement(1, 1), "proxy p is at revision 5 with digest bb"),
            (status(7, "aa", false).agreement(1, 1), "0 of 1 proxies are connected"),
            (status(7, "aa", true).agreement(3, 1), "1 of 3 members are known"),
        ] {
            assert!(unmet.as_ref().unwrap_err().contains(reason), "{unmet:?}");
        }
    }
}
