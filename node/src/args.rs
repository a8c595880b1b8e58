//! Flags of `dovetaild`, each also `DOVETAIL_…` and a key of the TOML file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use dovetail_control::ports::Slot;
use dovetail_raft_store::{LOG_KEPT_ENTRIES, Retention, StoreConfig};

/// A member of the core: watches Docker, keeps the replicated log, serves proxies and operators.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "dovetaild", version, max_term_width = 100)]
pub(crate) struct Args {
    /// This member's place in --members.
    #[arg(long, env = "DOVETAIL_ID")]
    pub id: Slot,

    /// Where the log, raft snapshots and the ledger are kept.
    #[arg(long, env = "DOVETAIL_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Where the gRPC API listens.
    #[arg(
        long,
        alias = "listen-addr",
        env = "DOVETAIL_LISTEN",
        value_name = "IP:PORT",
        value_parser = parse_listen,
        default_value = "0.0.0.0:8080"
    )]
    pub listen: SocketAddr,

    /// All members, as ID=HOST:PORT separated by commas: one, three or five.
    #[arg(long, env = "DOVETAIL_MEMBERS", value_name = "1=HOST:PORT,…")]
    pub members: Members,

    /// Holds ca.pem, cert.pem and key.pem of this member.
    #[arg(long, env = "DOVETAIL_TLS_DIR", value_name = "DIR")]
    pub tls_dir: PathBuf,

    /// The Docker Engine: unix:///PATH or tcp://HOST:PORT.
    #[arg(
        long,
        alias = "docker-url",
        env = "DOVETAIL_DOCKER",
        value_name = "URL",
        default_value = "unix:///var/run/docker.sock"
    )]
    pub docker: String,

    /// CA of the Docker Engine, for tcp:// with TLS (Interlock's TLSCACert).
    #[arg(long, alias = "tls-ca-cert", env = "DOVETAIL_DOCKER_CA", value_name = "FILE")]
    pub docker_ca: Option<PathBuf>,

    /// Client certificate for the Docker Engine (Interlock's TLSCert).
    #[arg(long, alias = "tls-cert", env = "DOVETAIL_DOCKER_CERT", value_name = "FILE")]
    pub docker_cert: Option<PathBuf>,

    /// Key of --docker-cert (Interlock's TLSKey).
    #[arg(long, alias = "tls-key", env = "DOVETAIL_DOCKER_KEY", value_name = "FILE")]
    pub docker_key: Option<PathBuf>,

    /// Do not check the Docker Engine's certificate (Interlock's AllowInsecure).
    #[arg(long, alias = "allow-insecure", env = "DOVETAIL_DOCKER_INSECURE")]
    pub docker_insecure: bool,

    /// TOML file with these flags and with Interlock's keys.
    #[arg(long, env = "DOVETAIL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where /livez, /readyz and /metrics listen [default: 127.0.0.1:9090].
    #[arg(long, env = "DOVETAIL_ADMIN", value_name = "IP:PORT")]
    pub admin: Option<SocketAddr>,

    /// The log on standard error: text or json.
    #[arg(long, env = "DOVETAIL_LOG_FORMAT", default_value = "text")]
    pub log: dovetail_process::log::Format,

    /// How many bytes of the ledger are kept, and a little more; what no raft snapshot holds
    /// always is.
    #[arg(
        long,
        env = "DOVETAIL_LEDGER_MAX_BYTES",
        value_name = "BYTES",
        default_value_t = Retention::default().bytes_max,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub ledger_max_bytes: u64,

    /// How long entries are kept in the ledger, such as 90d [default: whatever their age].
    #[arg(
        long,
        env = "DOVETAIL_LEDGER_MAX_AGE",
        value_name = "DURATION",
        value_parser = parse_age
    )]
    pub ledger_max_age: Option<Duration>,

    /// A raft snapshot is built after so many entries, or after 64 MiB of them.
    #[arg(
        long,
        env = "DOVETAIL_RAFT_SNAPSHOT_ENTRIES",
        value_name = "N",
        default_value_t = StoreConfig::default().snapshot_entries,
        value_parser = clap::value_parser!(u64).range(1..),
        hide = true
    )]
    pub raft_snapshot_entries: u64,

    /// Entries that the log keeps behind a raft snapshot, for members that are behind.
    #[arg(
        long,
        env = "DOVETAIL_RAFT_LOG_KEPT",
        value_name = "N",
        default_value_t = LOG_KEPT_ENTRIES,
        hide = true
    )]
    pub raft_log_kept: u64,

    /// Members compare what they hold after so many entries; the same on every member.
    #[arg(
        long,
        env = "DOVETAIL_CHECKPOINT_ENTRIES",
        value_name = "N",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..),
        hide = true
    )]
    pub checkpoint_entries: u64,

    /// Members compare what they hold after so many seconds without an entry.
    #[arg(
        long,
        env = "DOVETAIL_CHECKPOINT_IDLE",
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..),
        hide = true
    )]
    pub checkpoint_idle: u64,

    /// How others reach this member [default: its address in --members].
    #[arg(long, env = "DOVETAIL_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
}

impl Args {
    /// Checks what no flag can check alone.
    pub(crate) fn validate(&self) -> Result<(), InvalidArgs> {
        if !self.members.0.contains_key(&self.id) {
            return Err(InvalidArgs::NotListed { id: self.id, members: self.members.clone() });
        }
        Ok(())
    }

    /// How much of the ledger is kept.
    pub(crate) fn retention(&self) -> Retention {
        Retention {
            bytes_max: self.ledger_max_bytes,
            age_max: self.ledger_max_age,
            ..Retention::default()
        }
    }

    /// Where others reach this member.
    pub(crate) fn advertised(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.members.0[&self.id])
    }
}

/// The flags by name, with their aliases.
pub(crate) fn flags() -> Vec<String> {
    let command = <Args as clap::CommandFactory>::command();
    let names = command.get_arguments().flat_map(|flag| {
        let aliases = flag.get_all_aliases().unwrap_or_default();
        flag.get_long().into_iter().chain(aliases).map(str::to_owned)
    });
    names.collect()
}

/// Keys of the file that are no flags: what they say enters the log.
pub(crate) const CLUSTER_KEYS: &[&str] =
    &["PollInterval", "Extensions", "EndpointOverride", "dovetail"];

/// `IP:PORT`, or `:PORT` or `PORT` as Interlock writes it.
fn parse_listen(given: &str) -> Result<SocketAddr, String> {
    let full = match given.strip_prefix(':').unwrap_or(given) {
        port if port.parse::<u16>().is_ok() => format!("0.0.0.0:{port}"),
        _ => given.to_owned(),
    };
    full.parse().map_err(|_| "is not IP:PORT".to_owned())
}

/// A duration that is some.
fn parse_age(given: &str) -> Result<Duration, String> {
    match humantime::parse_duration(given) {
        Ok(Duration::ZERO) => Err("must be longer than nothing".to_owned()),
        Ok(age) => Ok(age),
        Err(error) => Err(format!("{error}; write it as 90d or 12h")),
    }
}

/// Flags that are each valid, but not together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidArgs {
    #[error("--id {id} is not in --members {members}")]
    NotListed { id: Slot, members: Members },
    #[error("--id is {id}, but {file} is the certificate of {identity}")]
    OtherCertificate { id: Slot, file: String, identity: String },
}

/// The addresses of all members by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members(pub(crate) BTreeMap<Slot, String>);

/// Why a list of members was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidMembers {
    #[error("{given:?} is not ID=HOST:PORT")]
    Form { given: String },
    #[error("{given:?}: the id must be a whole number from 1")]
    Id { given: String },
    #[error("{given:?}: the port must be from 1 to 65535")]
    Port { given: String },
    #[error("id {id} is given twice")]
    IdTwice { id: Slot },
    #[error("address {address} is given twice")]
    AddressTwice { address: String },
    #[error("{count} members are given: one, three or five are supported")]
    Count { count: usize },
}

impl FromStr for Members {
    type Err = InvalidMembers;

    fn from_str(given: &str) -> Result<Self, InvalidMembers> {
        let mut members = BTreeMap::new();
        for item in given.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let form = || InvalidMembers::Form { given: item.to_owned() };
            let (id, address) = item.split_once('=').ok_or_else(form)?;
            let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
            if host.is_empty() {
                return Err(form());
            }
            let id = match id.parse::<Slot>() {
                Ok(id) if id > 0 && id < 1_000 => id,
                _ => return Err(InvalidMembers::Id { given: item.to_owned() }),
            };
            if !port.parse::<u16>().is_ok_and(|port| port > 0) {
                return Err(InvalidMembers::Port { given: item.to_owned() });
            }
            if members.values().any(|known| known == address) {
                return Err(InvalidMembers::AddressTwice { address: address.to_owned() });
            }
            if members.insert(id, address.to_owned()).is_some() {
                return Err(InvalidMembers::IdTwice { id });
            }
        }
        match members.len() {
            1 | 3 | 5 => Ok(Self(members)),
            count => Err(InvalidMembers::Count { count }),
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (id, address)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{id}={address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_port_alone() {
        for given in ["0.0.0.0:8080", ":8080", "8080"] {
            assert_eq!(parse_listen(given), Ok(([0, 0, 0, 0], 8_080).into()), "{given}");
        }
        assert!(parse_listen("core-1").is_err() && parse_listen(":99999").is_err());
    }

    #[test]
    fn an_age_has_a_unit_and_is_some() {
        assert_eq!(parse_age("90d"), Ok(Duration::from_secs(90 * 86_400)));
        for bad in ["", "0s", "90", "-1d", "long"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_flag_is_known_to_those_who_only_read_the_file() {
        for flag in flags() {
            let known = dovetail_config::FLAGS.contains(&flag.as_str());
            assert!(known || flag == "config", "--{flag} is missing from dovetail_config::FLAGS");
        }
    }

    #[test]
    fn members_are_one_three_or_five_distinct_addresses() {
        for (given, error) in [
            ("1=a:1,2=b:1,3=c:1", None),
            ("1=[::1]:80", None),
            ("", Some(InvalidMembers::Count { count: 0 })),
            ("1=a:1,2=b:1", Some(InvalidMembers::Count { count: 2 })),
            ("1=a", Some(InvalidMembers::Form { given: "1=a".into() })),
            ("a:1", Some(InvalidMembers::Form { given: "a:1".into() })),
            ("x=a:1", Some(InvalidMembers::Id { given: "x=a:1".into() })),
            ("0=a:1", Some(InvalidMembers::Id { given: "0=a:1".into() })),
            ("1=a:0", Some(InvalidMembers::Port { given: "1=a:0".into() })),
            ("1=a:99999", Some(InvalidMembers::Port { given: "1=a:99999".into() })),
            ("1=a:1,1=b:1,3=c:1", Some(InvalidMembers::IdTwice { id: 1 })),
            ("1=a:1,2=a:1,3=c:1", Some(InvalidMembers::AddressTwice { address: "a:1".into() })),
        ] {
            assert_eq!(given.parse::<Members>().err(), error, "{given:?}");
        }
    }
}
