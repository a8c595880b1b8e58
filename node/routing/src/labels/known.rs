//! The labels that exist, and which of them this rule set acts on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fact::{HOSTS_MAX, LABEL_VALUE_BYTES_MAX, LabelValue};
use crate::problem::Trouble;

pub(crate) const HOSTS: &str = "com.docker.lb.hosts";
pub(crate) const PORT: &str = "com.docker.lb.port";
pub(crate) const NETWORK: &str = "com.docker.lb.network";
pub(crate) const DEFAULT_BACKEND: &str = "com.docker.lb.default_backend";
pub(crate) const SERVICE_CLUSTER: &str = "com.docker.lb.service_cluster";
pub(crate) const BACKEND_MODE: &str = "com.docker.lb.backend_mode";
pub(crate) const CONTEXT_ROOT: &str = "com.docker.lb.context_root";
pub(crate) const EXCLUSIVE: &str = "dovetail.exclusive";

const INTERLOCK: &str = "com.docker.lb.";
const HRM: &str = "com.docker.ucp.mesh.http";
const OURS: &str = "dovetail.";

const HONOURED: [&str; 8] =
    [HOSTS, PORT, NETWORK, DEFAULT_BACKEND, SERVICE_CLUSTER, BACKEND_MODE, CONTEXT_ROOT, EXCLUSIVE];

/// A label that is read by name only, until a later rule set honours it.
struct Later {
    label: &'static str,
    /// It belongs to the route, and so to the incumbent.
    of_the_route: bool,
    /// `false` asks for nothing.
    boolean: bool,
}

const fn later(label: &'static str, of_the_route: bool, boolean: bool) -> Later {
    Later { label, of_the_route, boolean }
}

const LATER: [Later; 15] = [
    later("com.docker.lb.ssl_cert", true, false),
    later("com.docker.lb.ssl_key", true, false),
    later("com.docker.lb.client_ca_cert", true, false),
    later("com.docker.lb.ssl_passthrough", true, true),
    later("com.docker.lb.context_root_rewrite", true, true),
    later("com.docker.lb.sticky_session_cookie", true, false),
    later("com.docker.lb.ip_hash", true, true),
    later("com.docker.lb.redirects", true, false),
    later("com.docker.lb.ssl_only", true, true),
    later("com.docker.lb.websocket_endpoints", false, false),
    later("com.docker.lb.max_fails", false, false),
    later("com.docker.lb.fail_timeout", false, false),
    later("com.docker.lb.ssl_backend", false, true),
    later("com.docker.lb.ssl_backend_tls_verify", false, false),
    later("dovetail.fail_on", false, false),
];

/// Edits between a misspelt label and the one that was probably meant.
const EDITS_MAX: usize = 2;

/// What is known of the labels that are not acted on.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// There is a label of Interlock's prefix that nobody knows.
    pub(super) misspelt: bool,
    pub(super) route_options: BTreeMap<Arc<str>, LabelValue>,
}

/// Labels of the routing mesh of UCP 2, Interlock's predecessor.
pub(super) fn is_hrm(label: &str) -> bool {
    label.strip_prefix(HRM).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Sorts out the labels that this rule set does not act on.
pub(super) fn set_aside(labels: &BTreeMap<Arc<str>, LabelValue>) -> (Aside, Vec<Trouble>) {
    let mut aside = Aside::default();
    let mut troubles = Vec::new();
    for (label, value) in labels {
        if HONOURED.contains(&&**label) {
            continue;
        }
        let mut trouble =
            |reason: String| troubles.push(Trouble::new(label, &shown(value), reason));
        if let Some(later) = LATER.iter().find(|later| later.label == &**label) {
            if later.boolean && is_false(value) {
                continue;
            }
            trouble("is not honoured yet: the service is served without it".into());
            if later.of_the_route {
                aside.route_options.insert(Arc::clone(label), normal(value, later.boolean));
            }
        } else if is_hrm(label) {
            trouble("is not honoured yet: say it with com.docker.lb labels".into());
        } else if label.starts_with(INTERLOCK) {
            aside.misspelt = true;
            trouble(unknown(label));
        } else if label.starts_with(OURS) {
            trouble(unknown(label));
        }
    }
    (aside, troubles)
}

fn is_false(value: &LabelValue) -> bool {
    matches!(value, LabelValue::Text(text) if text.trim().eq_ignore_ascii_case("false"))
}

/// Values that mean the same are the same.
fn normal(value: &LabelValue, boolean: bool) -> LabelValue {
    match value {
        LabelValue::Text(text) if boolean => {
            LabelValue::Text(text.trim().to_ascii_lowercase().into())
        }
        LabelValue::Text(text) => LabelValue::Text(text.trim().into()),
        oversized @ LabelValue::Oversized { .. } => oversized.clone(),
    }
}

fn unknown(label: &str) -> String {
    let known = HONOURED.into_iter().chain(LATER.iter().map(|later| later.label));
    // A label as long as an entry would make the comparison expensive.
    let near = known
        .filter(|known| known.len().abs_diff(label.len()) <= EDITS_MAX)
        .map(|known| (strsim::osa_distance(known, &label.to_ascii_lowercase()), known))
        .filter(|(edits, _)| *edits <= EDITS_MAX)
        .min();
    match near {
        Some((_, known)) => format!("is no known label: is {known} meant?"),
        None => "is no known label".into(),
    }
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
