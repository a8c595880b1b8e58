//! Labels of the routing mesh of UCP 2 (HRM), Interlock's predecessor.

use std::collections::{BTreeMap, BTreeSet};

use super::Labels;
use super::known::is_hrm;
use crate::names::Port;
use crate::snapshot::{Redirect, RouteHost, Sticky};

/// What such labels ask for; where a label of Interlock's says the same, that one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hrm {
    pub(super) hosts: BTreeSet<RouteHost>,
    pub(super) default_backend: bool,
    pub(super) port: Option<Port>,
    pub(super) passthrough: bool,
    pub(super) sticky: Sticky,
    pub(super) redirects: BTreeMap<RouteHost, Redirect>,
}

impl<'a> Labels<'a> {
    /// The labels of this kind that the service has.
    pub(super) fn hrm_labels(&self) -> Vec<&'a str> {
        self.service.labels.keys().map(|label| &**label).filter(|label| is_hrm(label)).collect()
    }

    pub(super) fn hrm(&mut self, labels: &[&str]) -> Option<Hrm> {
        for label in labels {
            let value = self.service.labels.get(*label).map(super::known::shown);
            let reason = "is not honoured yet: say it with com.docker.lb labels";
            self.trouble(label, &value.unwrap_or_default(), reason);
        }
        None
    }
}
