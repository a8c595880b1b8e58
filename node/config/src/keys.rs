//! The vocabulary of Interlock's configuration file, and of ours beside it.

use std::ops::RangeInclusive;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The range of `PollInterval`.
pub(super) const POLL_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;
/// The range of time-outs.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
/// The range of a request's head, in bytes.
pub(super) const HEADER_BYTES: RangeInclusive<u64> = 1_024..=1_024 * 1_024;
/// Bytes of a request's head that a proxy takes at most.
pub(super) const HEADER_BYTES_TAKEN: u64 = 64 * 1_024;
/// The range of `MaxConnections`.
pub(super) const CONNECTIONS: RangeInclusive<u64> = 1..=10_000_000;
/// Entries of `TrustedProxies`.
pub(super) const SUBNETS_MAX: usize = 1_000;
/// Longest `AccessLogPath`, in bytes.
pub(super) const PATH_BYTES_MAX: usize = 4_096;

/// Edits between a misspelt key and the one that was probably meant.
const EDITS_MAX: usize = 2;

/// Flags of `dovetaild` and `dovetail-proxy`, each also a top-level key of the file, for
/// those who read it without being one of the two.
pub const FLAGS: &[&str] = &[
    "access-log",
    "admin",
    "advertise",
    "checkpoint-entries",
    "raft-snapshot-entries",
    "raft-log-kept",
    "checkpoint-idle",
    "allow-insecure",
    "connections-max",
    "connections-per-client-max",
    "core",
    "data-dir",
    "docker",
    "docker-ca",
    "docker-cert",
    "docker-insecure",
    "docker-key",
    "docker-url",
    "drain-notice",
    "grace",
    "http",
    "https",
    "id",
    "ledger-max-age",
    "ledger-max-bytes",
    "listen",
    "listen-addr",
    "log",
    "log-format",
    "members",
    "name",
    "secrets-dir",
    "service-cluster",
    "threads",
    "tls-ca-cert",
    "tls-cert",
    "tls-dir",
    "tls-key",
];

/// Top-level keys of Interlock that a member reads for itself: texts.
pub(super) const PROCESS: &[&str] = &["ListenAddr", "DockerURL", "TLSCACert", "TLSCert", "TLSKey"];

/// Further top-level keys.
const TOP: &[&str] = &["AllowInsecure", "EndpointOverride", "PollInterval", "Extensions"];

pub(super) const ENDPOINT_OVERRIDE: &str = "--advertise says how others reach a member";
pub(super) const PORTS: &str =
    "ports and publish mode of the built-in proxy are those of its service (deploy/stack.yml)";

/// Keys of `Extensions.NAME` that are read.
const EXTENSION: &[&str] = &[
    "ServiceCluster",
    "Config",
    "PublishMode",
    "PublishedPort",
    "TargetPort",
    "PublishedSSLPort",
    "TargetSSLPort",
];

const EXTENSION_SERVICE: &str = "an extension is a service of its own: say it in the stack file";
const PROXY_SERVICE: &str = "the proxy is a service of its own: say it in deploy/stack.yml";
const NO_FILE: &str = "the built-in proxy has no configuration file";
const HITLESS: &str = "routes and certificates change without a restart, always";

/// Keys of `Extensions.NAME` without a meaning here, and what to use instead.
pub(super) const EXTENSION_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("Image", EXTENSION_SERVICE),
    ("Args", EXTENSION_SERVICE),
    ("Labels", EXTENSION_SERVICE),
    ("ContainerLabels", EXTENSION_SERVICE),
    ("Constraints", EXTENSION_SERVICE),
    ("PlacementPreferences", EXTENSION_SERVICE),
    ("ServiceName", EXTENSION_SERVICE),
    ("ProxyImage", PROXY_SERVICE),
    ("ProxyArgs", PROXY_SERVICE),
    ("ProxyLabels", PROXY_SERVICE),
    ("ProxyContainerLabels", PROXY_SERVICE),
    ("ProxyServiceName", PROXY_SERVICE),
    ("ProxyConfigPath", NO_FILE),
    ("ProxyReplicas", PROXY_SERVICE),
    ("ProxyStopSignal", "the proxy finishes its requests on SIGTERM and SIGINT alike"),
    ("ProxyStopGracePeriod", "--grace of dovetail-proxy, below its service's stop_grace_period"),
    ("ProxyConstraints", PROXY_SERVICE),
    ("ProxyPlacementPreferences", PROXY_SERVICE),
    ("ProxyUpdateDelay", PROXY_SERVICE),
    ("Networks", "the networks of the proxy are those of its service"),
    ("Template", NO_FILE),
    ("HitlessServiceUpdate", HITLESS),
    ("ConfigImage", HITLESS),
    ("ConfigServiceName", HITLESS),
];

/// Keys of `Extensions.NAME.Config` that are read.
const OPTIONS: &[&str] = &[
    "HTTPVersion",
    "MaxConnections",
    "ConnectTimeout",
    "SendTimeout",
    "ReadTimeout",
    "ClientTimeout",
    "ServerTimeout",
    "IPHash",
    "SSLVerify",
    "SSLCiphers",
    "SSLProtocols",
    "HideInfoHeaders",
    "KeepaliveTimeout",
    "ClientMaxBodySize",
    "ClientBodyTimeout",
    "ClientHeaderBufferSize",
    "LargeClientHeaderBuffers",
    "UnderscoresInHeaders",
    "AccessLogPath",
    "MainLogFormat",
    "TrustedProxies",
    "ProxyProtocol",
    "MergeHosts",
];

const NO_PAGE: &str = "there is no page of statistics: /metrics at --admin has the figures";
const NO_DH: &str = "no cipher suite with finite-field Diffie-Hellman is offered";
const NO_LINES: &str = "lines in another proxy's language mean nothing to the built-in one";
const SIZED: &str = "tables take the size that they need";

/// Keys of `Extensions.NAME.Config` without a meaning here, and what to use instead.
pub(super) const OPTIONS_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("Version", "dovetail proxies shows what runs"),
    ("User", "user of the service in deploy/stack.yml"),
    ("PidPath", "no such file is written"),
    ("AdminUser", NO_PAGE),
    ("AdminPass", NO_PAGE),
    ("SSLOpts", "SSLProtocols and SSLCiphers are honoured"),
    ("SSLDefaultDHParam", NO_DH),
    ("SSLDefaultDHParamPath", NO_DH),
    ("WorkerProcesses", "--threads of dovetail-proxy"),
    ("RLimitNoFile", "ulimits of the service in deploy/stack.yml"),
    ("ClientBodyBufferSize", "bodies are passed on as they come"),
    ("UpstreamZoneSize", SIZED),
    ("ServerNamesHashBucketSize", SIZED),
    ("GlobalOptions", NO_LINES),
    ("HTTPOptions", NO_LINES),
    ("TCPOptions", NO_LINES),
    ("DefaultOptions", NO_LINES),
    ("ErrorLogPath", "errors go to standard error, in the form of --log-format"),
    ("TraceLogFormat", "there is one access log, in MainLogFormat"),
];

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Top,
    Extension,
    Options,
}

impl Level {
    const ALL: [Self; 3] = [Self::Top, Self::Extension, Self::Options];

    fn named(self) -> &'static str {
        match self {
            Self::Top => "the top level",
            Self::Extension => "Extensions.NAME",
            Self::Options => "Extensions.NAME.Config",
        }
    }

    fn keys(self) -> impl Iterator<Item = &'static str> {
        let (read, others): (&[&[&str]], &[(&str, &str)]) = match self {
            Self::Top => (&[PROCESS, TOP], &[]),
            Self::Extension => (&[EXTENSION], EXTENSION_WITHOUT_EFFECT),
            Self::Options => (&[OPTIONS], OPTIONS_WITHOUT_EFFECT),
        };
        read.iter().flat_map(|keys| keys.iter().copied()).chain(others.iter().map(|(key, _)| *key))
    }
}

/// What to use instead of a key without a meaning here, if it is one.
pub(super) fn hint(keys: &[(&str, &'static str)], key: &str) -> Option<&'static str> {
    keys.iter().find(|(known, _)| known.eq_ignore_ascii_case(key)).map(|(_, hint)| *hint)
}

/// What is said of a key that Interlock knows, and that has no meaning here.
pub(super) fn without_effect(hint: &str) -> String {
    format!("is accepted and has no effect here: {hint}")
}

/// What is said of a key that is not known at its level.
pub(super) fn unknown(key: &str, level: Level) -> String {
    for other in Level::ALL {
        if other != level && other.keys().any(|known| known.eq_ignore_ascii_case(key)) {
            return format!("is a key of {} and has no effect here", other.named());
        }
    }
    let lower = key.to_ascii_lowercase();
    let near = level
        .keys()
        // A key as long as a file would make the comparison expensive.
        .filter(|known| known.len().abs_diff(key.len()) <= EDITS_MAX)
        .map(|known| (strsim::osa_distance(&known.to_ascii_lowercase(), &lower), known))
        .filter(|(edits, _)| *edits <= EDITS_MAX)
        .min();
    match near {
        Some((_, known)) => format!("is not a known key and has no effect: is {known} meant?"),
        None => "is not a known key and has no effect".to_owned(),
    }
}

/// A key as flags, variables and files may write it, made comparable.
pub(super) fn plain(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}
