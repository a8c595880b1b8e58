//! The vocabulary of Interlock's configuration file, in lower case.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Known to Interlock, and without a meaning here.
pub(super) const NOT_HONOURED: &str = "is accepted and has no effect here";
/// Known to nobody.
pub(super) const UNKNOWN: &str = "is not a known key and has no effect";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The range of `PollInterval`.
pub(super) const POLL_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;
/// The range of time-outs.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;

/// Top-level keys that a member reads for itself.
pub(super) const PROCESS: &[&str] = &[
    "listenaddr",
    "dockerurl",
    "tlscacert",
    "tlscert",
    "tlskey",
    "allowinsecure",
    "endpointoverride",
];

/// Keys of `Extensions.NAME`, but for `ServiceCluster` and `Config`.
pub(super) const EXTENSION: &[&str] = &[
    "image",
    "args",
    "labels",
    "containerlabels",
    "constraints",
    "placementpreferences",
    "servicename",
    "proxyimage",
    "proxyargs",
    "proxylabels",
    "proxycontainerlabels",
    "proxyservicename",
    "proxyconfigpath",
    "proxyreplicas",
    "proxystopsignal",
    "proxystopgraceperiod",
    "proxyconstraints",
    "proxyplacementpreferences",
    "proxyupdatedelay",
    "networks",
    "publishmode",
    "publishedport",
    "targetport",
    "publishedsslport",
    "targetsslport",
    "template",
    "hitlessserviceupdate",
    "configimage",
    "configservicename",
];

/// Keys of `Extensions.NAME.Config` that are not honoured.
pub(super) const EXTENSION_CONFIG: &[&str] = &[
    "version",
    "httpversion",
    "user",
    "pidpath",
    "maxconnections",
    "iphash",
    "adminuser",
    "adminpass",
    "sslopts",
    "ssldefaultdhparam",
    "ssldefaultdhparampath",
    "sslverify",
    "workerprocesses",
    "rlimitnofile",
    "sslciphers",
    "sslprotocols",
    "clientbodybuffersize",
    "clientheaderbuffersize",
    "largeclientheaderbuffers",
    "clientbodytimeout",
    "underscoresinheaders",
    "upstreamzonesize",
    "servernameshashbucketsize",
    "globaloptions",
    "httpoptions",
    "tcpoptions",
    "defaultoptions",
    "accesslogpath",
    "errorlogpath",
    "mainlogformat",
    "tracelogformat",
    "clienttimeout",
    "servertimeout",
];

/// Whether a key's value is a secret: `AdminPass` and the like.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "password", "passphrase", "passwd", "token"].iter().any(|end| key.ends_with(end))
}

/// A key as flags, variables and files may write it, made comparable.
pub(super) fn plain(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}
