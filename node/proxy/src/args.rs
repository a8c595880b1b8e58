//! The command line: strings to typed values, once, with the name of the offending flag.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dovetail_feed::{CoreAddresses, InvalidAddresses};
use dovetail_process::admin;
use dovetail_process::identity::Identity;
use dovetail_process::log::Format;
use dovetail_process::tls::TlsDir;
use dovetail_routing::names::{InvalidName, ServiceCluster};

use crate::access_log::AccessLogTarget;

/// Longest name of a proxy, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Most threads that may be asked for.
const THREADS_MAX: usize = 1_024;

/// Keys of an Interlock file that are not this process's.
pub const CLUSTER_KEYS: &[&str] = &[
    "AllowInsecure",
    "DockerURL",
    "dovetail",
    "EndpointOverride",
    "Extensions",
    "ListenAddr",
    "PollInterval",
    "TLSCACert",
    "TLSCert",
    "TLSKey",
];

/// Dovetail's proxy: takes HTTP requests and passes them on to Swarm services, by the
/// routes that the core publishes.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "dovetail-proxy", version)]
pub struct Args {
    /// Members of the core in order of preference, separated by commas.
    #[arg(
        long,
        env = "DOVETAIL_CORE",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        required = true
    )]
    pub core: Vec<String>,
    /// Folder with ca.pem, cert.pem and key.pem of this proxy.
    #[arg(long, env = "DOVETAIL_TLS_DIR", value_name = "DIR")]
    pub tls_dir: PathBuf,
    /// Where plain HTTP requests are taken: HTTP/1.1, and HTTP/2 with prior knowledge.
    #[arg(long, env = "DOVETAIL_HTTP", value_name = "IP:PORT")]
    pub http: SocketAddr,
    /// Where TLS is taken: HTTP/1.1 and HTTP/2, by the certificates that routes name.
    #[arg(long, env = "DOVETAIL_HTTPS", value_name = "IP:PORT")]
    pub https: Option<SocketAddr>,
    /// Folder for the copy of the routes in force, with which a proxy starts without a core.
    #[arg(long, env = "DOVETAIL_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Folder with the certificates and keys that routes name: one file for each secret.
    /// Read again when they change.
    #[arg(long, env = "DOVETAIL_SECRETS_DIR", value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// The service cluster whose routes this proxy serves; the default one is empty.
    #[arg(long, env = "DOVETAIL_SERVICE_CLUSTER", value_name = "NAME", default_value = "")]
    pub service_cluster: String,
    /// What this proxy is called; the host name unless given or in its certificate.
    #[arg(long, env = "DOVETAIL_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// Where /livez, /readyz and /metrics are answered.
    #[arg(long, env = "DOVETAIL_ADMIN", value_name = "IP:PORT", default_value_t = admin::DEFAULT_ADDR)]
    pub admin: SocketAddr,
    /// Where one line per request goes; as the core's configuration says unless given,
    /// and to standard output unless that says otherwise.
    #[arg(long, env = "DOVETAIL_ACCESS_LOG", value_name = "stdout|none|FILE")]
    pub access_log: Option<AccessLogTarget>,
    /// How the log on standard error looks.
    #[arg(long, env = "DOVETAIL_LOG_FORMAT", value_name = "text|json", default_value = "text")]
    pub log_format: Format,
    /// Threads that serve requests; as many as there are processors unless given.
    #[arg(long, env = "DOVETAIL_THREADS", value_name = "N")]
    pub threads: Option<usize>,
    /// Connections of clients at one time; more are closed at once.
    #[arg(long, env = "DOVETAIL_CONNECTIONS_MAX", value_name = "N", default_value_t = 10_000)]
    pub connections_max: usize,
    /// Connections of one client (an IPv6 client is a /64); more are closed at once. 0 is no
    /// limit. Trusted proxies may have more, since they speak for many.
    #[arg(
        long,
        env = "DOVETAIL_CONNECTIONS_PER_CLIENT_MAX",
        value_name = "N",
        default_value_t = 0
    )]
    pub connections_per_client_max: usize,
    /// At the end: how long to say "not ready" before connections are refused.
    #[arg(long, env = "DOVETAIL_DRAIN_NOTICE", value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub drain_notice: Duration,
    /// At the end: how long requests under way may take.
    #[arg(long, env = "DOVETAIL_GRACE", value_name = "TIME", default_value = "25s", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// TOML file with any of these as keys; Interlock's file will do.
    #[arg(long, env = "DOVETAIL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments that clap takes and that still cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidArgs {
    #[error("--core")]
    Core(#[source] InvalidAddresses),
    #[error("--service-cluster")]
    ServiceCluster(#[source] InvalidName),
    #[error("--threads {0}: it is 1 to {THREADS_MAX}")]
    Threads(usize),
    #[error("--connections-max 0: a proxy without connections serves nobody")]
    NoConnections,
    #[error("--name {0:?}: it is 1 to {NAME_BYTES_MAX} letters, digits, '_', '.' and '-'")]
    Name(String),
}

/// A certificate that is not for this proxy.
#[derive(Debug, thiserror::Error)]
pub enum WrongCertificate {
    #[error("the certificate in {dir} is {found}, but a proxy needs dovetail://proxy")]
    Role { dir: String, found: Box<Identity> },
    #[error("--name {given} is not {certified}, the name in the certificate")]
    Name { given: String, certified: String },
    #[error("the certificate {found} does not allow service cluster {asked:?}")]
    ServiceCluster { found: Box<Identity>, asked: String },
}

impl Args {
    /// The members to follow.
    pub fn core(&self) -> Result<CoreAddresses, InvalidArgs> {
        self.core.join(",").parse().map_err(InvalidArgs::Core)
    }

    /// The service cluster to serve.
    pub fn service_cluster(&self) -> Result<ServiceCluster, InvalidArgs> {
        self.service_cluster.parse().map_err(InvalidArgs::ServiceCluster)
    }

    /// How many threads serve requests.
    pub fn threads(&self) -> Result<usize, InvalidArgs> {
        match self.threads {
            Some(threads) if (1..=THREADS_MAX).contains(&threads) => Ok(threads),
            Some(threads) => Err(InvalidArgs::Threads(threads)),
            None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    /// Checks what needs no certificate.
    pub fn check(&self) -> Result<(), InvalidArgs> {
        if self.connections_max == 0 {
            return Err(InvalidArgs::NoConnections);
        }
        match &self.name {
            Some(name) if !is_name(name) => Err(InvalidArgs::Name(name.clone())),
            _ => Ok(()),
        }
    }

    /// The proxy's name: the certificate's, else the given one, else the host's.
    pub fn certified_name(&self, tls: &TlsDir) -> Result<String, WrongCertificate> {
        let identity = tls.identity();
        if !matches!(identity, Identity::Proxy { .. }) {
            let dir = tls.dir().display().to_string();
            return Err(WrongCertificate::Role { dir, found: Box::new(identity.clone()) });
        }
        if !identity.may_subscribe(&self.service_cluster) {
            return Err(WrongCertificate::ServiceCluster {
                found: Box::new(identity.clone()),
                asked: self.service_cluster.clone(),
            });
        }
        match (identity.name(), &self.name) {
            (Some(certified), Some(given)) if certified != given => Err(WrongCertificate::Name {
                given: given.clone(),
                certified: certified.to_owned(),
            }),
            (Some(certified), _) => Ok(certified.to_owned()),
            (None, Some(given)) => Ok(given.clone()),
            (None, None) => Ok(host_name()),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn host_name() -> String {
    let found = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if is_name(&found) { found } else { "dovetail-proxy".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        let mut words = vec!["dovetail-proxy", "--core", "a:1,b:2", "--tls-dir", "/t"];
        words.extend(["--http", "127.0.0.1:80", "--https", "127.0.0.1:443", "--data-dir", "/d"]);
        words.extend(more);
        Args::try_parse_from(words)
    }

    #[test]
    fn every_flag_is_known_to_those_who_only_read_the_file() {
        let command = <Args as clap::CommandFactory>::command();
        for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
            let known = dovetail_config::FLAGS.contains(&flag) || flag == "config";
            assert!(known, "--{flag} is missing from dovetail_config::FLAGS");
        }
    }

    #[test]
    fn the_flags_of_the_contract_are_taken() {
        let args = parse(&[
            "--secrets-dir",
            "/s",
            "--service-cluster",
            "west",
            "--name",
            "p1",
            "--admin",
            "127.0.0.1:9091",
            "--access-log",
            "none",
        ])
        .expect("valid");
        assert_eq!(args.core().expect("valid").as_slice(), ["a:1", "b:2"]);
        assert_eq!(args.service_cluster().expect("valid").as_str(), "west");
        assert_eq!(args.access_log, Some(AccessLogTarget::None));
        assert!(args.check().is_ok() && args.threads().is_ok_and(|threads| threads > 0));
        assert_eq!(args.grace, Duration::from_secs(25));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (more, word) in [
            (&["--threads", "0"][..], "--threads 0"),
            (&["--service-cluster", "a b"], "--service-cluster"),
            (&["--name", "a b"], "--name"),
            (&["--connections-max", "0"], "--connections-max"),
        ] {
            let args = parse(more).expect("clap takes it");
            let refused = args
                .check()
                .and_then(|()| args.threads().map(drop))
                .and_then(|()| args.service_cluster().map(drop));
            let error = refused.expect_err("it is refused");
            assert!(error.to_string().contains(word), "{error}");
        }
        for more in [&["--grace", "soon"][..], &["--admin", "9090"], &["--access-log", ""]] {
            assert!(parse(more).is_err(), "{more:?}");
        }
    }
}
