//! The labels that exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fact::{HOSTS_MAX, LABEL_VALUE_BYTES_MAX, LabelValue};
use crate::problem::Trouble;

macro_rules! labels {
    ($($name:ident = $label:literal)*) => {
        $(pub(crate) const $name: &str = $label;)*
        const KNOWN: &[&str] = &[$($label),*];
    };
}

labels! {
    HOSTS = "com.docker.lb.hosts"
    PORT = "com.docker.lb.port"
    NETWORK = "com.docker.lb.network"
    DEFAULT_BACKEND = "com.docker.lb.default_backend"
    SERVICE_CLUSTER = "com.docker.lb.service_cluster"
    BACKEND_MODE = "com.docker.lb.backend_mode"
    CONTEXT_ROOT = "com.docker.lb.context_root"
    CONTEXT_ROOT_REWRITE = "com.docker.lb.context_root_rewrite"
    SSL_CERT = "com.docker.lb.ssl_cert"
    SSL_KEY = "com.docker.lb.ssl_key"
    CLIENT_CA_CERT = "com.docker.lb.client_ca_cert"
    SSL_PASSTHROUGH = "com.docker.lb.ssl_passthrough"
    SSL_ONLY = "com.docker.lb.ssl_only"
    REDIRECTS = "com.docker.lb.redirects"
    STICKY_SESSION_COOKIE = "com.docker.lb.sticky_session_cookie"
    IP_HASH = "com.docker.lb.ip_hash"
    WEBSOCKET_ENDPOINTS = "com.docker.lb.websocket_endpoints"
    MAX_FAILS = "com.docker.lb.max_fails"
    FAIL_TIMEOUT = "com.docker.lb.fail_timeout"
    SSL_BACKEND = "com.docker.lb.ssl_backend"
    SSL_BACKEND_TLS_VERIFY = "com.docker.lb.ssl_backend_tls_verify"
    EXCLUSIVE = "dovetail.exclusive"
    FAIL_ON = "dovetail.fail_on"
    PROTOCOL = "dovetail.protocol"
    SSL_BACKEND_CA = "dovetail.ssl_backend_ca"
    SSL_BACKEND_NAME = "dovetail.ssl_backend_name"
}

/// Labels that name a secret.
pub(super) const OF_SECRETS: [&str; 4] = [SSL_CERT, SSL_KEY, CLIENT_CA_CERT, SSL_BACKEND_CA];

/// Which stack a service belongs to.
pub(super) const STACK: &str = "com.docker.stack.namespace";

const INTERLOCK: &str = "com.docker.lb.";
const MESH: &str = "com.docker.ucp.mesh.";
const HRM: &str = "com.docker.ucp.mesh.http";
const OURS: &str = "dovetail.";

/// Edits between a misspelt label and the one that was probably meant.
const EDITS_MAX: usize = 2;

/// Labels of the routing mesh of UCP 2 (HRM), Interlock's predecessor.
pub(super) fn is_hrm(label: &str) -> bool {
    label.strip_prefix(HRM).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What the labels that nobody knows say of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misspelt {
    #[default]
    None,
    /// One has a prefix of labels that publish.
    Prefix,
    /// One is nearly a label that alone asks for a service to be published.
    Publishing,
}

/// Names the labels that nobody knows.
pub(super) fn unknown(labels: &BTreeMap<Arc<str>, LabelValue>) -> (Misspelt, Vec<Trouble>) {
    let mut misspelt = Misspelt::None;
    let mut troubles = Vec::new();
    for (label, value) in labels {
        if KNOWN.contains(&&**label) || is_hrm(label) {
            continue;
        }
        let publishes = label.starts_with(INTERLOCK) || label.starts_with(MESH);
        if !publishes && !label.starts_with(OURS) {
            continue;
        }
        let near = nearest(label);
        let reason = match near {
            Some(known) => format!("is no known label: is {known} meant?"),
            None => "is no known label".into(),
        };
        troubles.push(Trouble::new(label, &shown(value), reason));
        if near.is_some_and(|known| [HOSTS, DEFAULT_BACKEND, HRM].contains(&known)) {
            misspelt = Misspelt::Publishing;
        } else if publishes {
            misspelt = misspelt.max(Misspelt::Prefix);
        }
    }
    (misspelt, troubles)
}

/// The label that was probably meant.
fn nearest(label: &str) -> Option<&'static str> {
    // A label as long as an entry would make the comparison expensive.
    let near = KNOWN
        .iter()
        .copied()
        .chain([HRM])
        .filter(|known| known.len().abs_diff(label.len()) <= EDITS_MAX)
        .map(|known| (strsim::osa_distance(known, &label.to_ascii_lowercase()), known))
        .filter(|(edits, _)| *edits <= EDITS_MAX);
    near.min().map(|(_, known)| known)
}

/// A value as a problem shows it.
pub(crate) fn shown(value: &LabelValue) -> String {
    match value {
        LabelValue::Text(text) => text.trim().into(),
        LabelValue::Oversized { bytes, hash } => {
            let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            format!("({bytes} bytes, blake3 {hash}…)")
        }
    }
}

/// Why a value was not recorded, or is not read.
pub(super) fn oversized(value: &LabelValue) -> String {
    let bytes = match value {
        LabelValue::Text(text) => text.len() as u64,
        LabelValue::Oversized { bytes, .. } => *bytes,
    };
    if bytes > LABEL_VALUE_BYTES_MAX as u64 {
        format!("is {bytes} bytes long, above the limit of {LABEL_VALUE_BYTES_MAX}")
    } else {
        format!("is {bytes} bytes long and names more than {HOSTS_MAX} hosts")
    }
}
