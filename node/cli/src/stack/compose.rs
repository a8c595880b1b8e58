//! A stack file (Compose, version 3) as the services that `docker stack deploy` would make.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_config::planned::{self, Planned, STACK_LABEL};
use dovetail_routing::fact::{EndpointMode, HostPort, Scale};

use super::files::Severity;
use super::variables::replace;
use super::yaml::{self, InvalidYaml, Map, Node, Place, Value};

/// What a stack file says.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    pub(crate) services: Vec<Service>,
    /// Secrets that it makes or takes as there, by the names that Docker has for them.
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) remarks: Vec<Remark>,
}

/// A service and where its parts stand.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) planned: Planned,
    pub(crate) place: Place,
    pub(crate) labels: BTreeMap<String, Place>,
}

/// Something that is wrong with the file itself.
#[derive(Debug)]
pub(crate) struct Remark {
    pub(crate) severity: Severity,
    pub(crate) place: Place,
    pub(crate) service: String,
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) reason: String,
}

/// Where values of variables come from.
pub(crate) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Reads a stack file for the stack of this name.
pub(crate) fn read(
    text: &str,
    stack: &str,
    environment: Environment<'_>,
) -> Result<Stack, InvalidYaml> {
    let Some(document) = yaml::read(text)? else {
        return Err(InvalidYaml { place: Place::START, reason: "the file is empty".to_owned() });
    };
    let Value::Map(top) = &document.value else {
        let reason = "a stack file begins with keys such as services".to_owned();
        return Err(InvalidYaml { place: document.place, reason });
    };
    let mut reader = Reader {
        stack_name: stack,
        environment,
        service: String::new(),
        unset: BTreeSet::new(),
        stack: Stack::default(),
    };
    reader.file(top, document.place);
    Ok(reader.stack)
}

struct Reader<'e> {
    stack_name: &'e str,
    environment: Environment<'e>,
    /// Whose parts are read.
    service: String,
    /// Variables that were told of.
    unset: BTreeSet<String>,
    stack: Stack,
}

/// Names of a file's networks or secrets: as it calls them, as Docker does.
type Names = BTreeMap<String, String>;

impl Reader<'_> {
    fn file(&mut self, top: &Map, place: Place) {
        if let Some(version) = top.get("version")
            && let Some(text) = self.text(version)
            && (text.starts_with('1') || text.starts_with('2'))
        {
            self.problem(version.place, format!("version {text}: a stack file has version 3"));
        }
        let networks = self.names(top, "networks");
        let secrets = self.names(top, "secrets");
        self.stack.secrets = secrets.into_values().collect();
        let Some(services) = top.get("services") else {
            self.problem(place, "the file has no services");
            return;
        };
        let Some(services) = self.map(services, "services") else { return };
        for (key, node) in services.iter() {
            self.service = format!("{}_{}", self.stack_name, key.text);
            if let Some(parts) = self.map(node, &key.text) {
                self.service(parts, key.place, &networks);
            }
            self.service.clear();
        }
    }

    fn service(&mut self, parts: &Map, place: Place, networks: &Names) {
        self.container_labels(parts);
        let empty = Map::default();
        let deploy = parts.get("deploy").filter(|node| !node.is_null());
        let deploy = deploy.and_then(|node| self.map(node, "deploy")).unwrap_or(&empty);
        let mut labels = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (label, value, place) in self.labels(deploy) {
            places.insert(label.clone(), place);
            labels.insert(label, value);
        }
        labels.insert(STACK_LABEL.to_owned(), self.stack_name.to_owned());
        let planned = Planned {
            name: self.service.clone(),
            labels,
            networks: self.networks(parts, networks),
            endpoint_mode: self.endpoint_mode(deploy),
            host_ports: self.host_ports(parts),
            scale: self.scale(deploy),
        };
        self.stack.services.push(Service { planned, place, labels: places });
    }

    /// `labels` as a map, or as a list of `label=value`.
    fn labels(&mut self, of: &Map) -> Vec<(String, String, Place)> {
        let Some(node) = of.get("labels").filter(|node| !node.is_null()) else {
            return Vec::new();
        };
        let mut labels = Vec::new();
        match &node.value {
            Value::Map(map) => {
                for (key, value) in map.iter() {
                    if let Some(text) = self.text(value) {
                        labels.push((key.text.clone(), text, key.place));
                    }
                }
            }
            Value::List(nodes) => {
                for node in nodes {
                    if let Some(text) = self.text(node) {
                        let (label, value) = text.split_once('=').unwrap_or((&text, ""));
                        labels.push((label.to_owned(), value.to_owned(), node.place));
                    }
                }
            }
            Value::Scalar(_) => self.problem(node.place, "labels must be a map or a list"),
        }
        labels
    }

    /// Labels of containers mean nothing here, and are easily mistaken for the service's.
    fn container_labels(&mut self, parts: &Map) {
        for (label, value, place) in self.labels(parts) {
            if planned::is_recorded(&label) && label != STACK_LABEL {
                let reason = "is a label of the containers, which Swarm shows to nobody: move it \
                              under deploy";
                self.remark(Severity::Problem, place, (&label, &value), reason);
            }
        }
    }

    fn networks(&mut self, parts: &Map, declared: &Names) -> BTreeSet<String> {
        let default = || {
            let implicit = format!("{}_default", self.stack_name);
            BTreeSet::from([declared.get("default").cloned().unwrap_or(implicit)])
        };
        let Some(node) = parts.get("networks").filter(|node| !node.is_null()) else {
            return default();
        };
        let named: Vec<(String, Place)> = match &node.value {
            Value::Map(map) => map.iter().map(|(key, _)| (key.text.clone(), key.place)).collect(),
            Value::List(nodes) => {
                let text = |node: &Node| Some((self.text(node)?, node.place));
                let mut text = text;
                nodes.iter().filter_map(|node| text(node)).collect()
            }
            Value::Scalar(_) => {
                self.problem(node.place, "networks must be a list or a map");
                Vec::new()
            }
        };
        let mut networks = BTreeSet::new();
        for (name, place) in named {
            match declared.get(&name) {
                Some(full) => {
                    networks.insert(full.clone());
                }
                None if name == "default" => {
                    networks.insert(format!("{}_default", self.stack_name));
                }
                None => {
                    let reason =
                        format!("network {name} is not declared under networks at the top level");
                    self.problem(place, reason);
                }
            }
        }
        networks
    }

    fn endpoint_mode(&mut self, deploy: &Map) -> EndpointMode {
        let Some(node) = deploy.get("endpoint_mode") else { return EndpointMode::Vip };
        match self.text(node).as_deref() {
            Some("vip" | "") | None => EndpointMode::Vip,
            Some("dnsrr") => EndpointMode::Dnsrr,
            Some(other) => {
                self.problem(node.place, format!("endpoint_mode {other:?} must be vip or dnsrr"));
                EndpointMode::Vip
            }
        }
    }

    fn scale(&mut self, deploy: &Map) -> Scale {
        let mode = deploy.get("mode").and_then(|node| Some((self.text(node)?, node.place)));
        match mode.as_ref().map(|(mode, place)| (mode.as_str(), place)) {
            None | Some(("replicated" | "", _)) => {}
            Some(("global", _)) => return Scale::Global,
            Some(("replicated-job" | "global-job", _)) => return Scale::Job,
            Some((other, place)) => {
                let reason = format!("mode {other:?} must be replicated, global or a job");
                self.problem(*place, reason);
            }
        }
        let Some(node) = deploy.get("replicas").filter(|node| !node.is_null()) else {
            return Scale::Replicated(1);
        };
        let text = self.text(node).unwrap_or_default();
        Scale::Replicated(text.parse().unwrap_or_else(|_| {
            self.problem(node.place, format!("replicas {text:?} must be a whole number"));
            1
        }))
    }

    /// Ports published in host mode: only the long form has a mode.
    fn host_ports(&mut self, parts: &Map) -> Vec<HostPort> {
        let Some(Node { value: Value::List(nodes), .. }) = parts.get("ports") else {
            return Vec::new();
        };
        let mut ports = Vec::new();
        for node in nodes {
            let Value::Map(map) = &node.value else { continue };
            let mut text = |key: &str| map.get(key).and_then(|node| self.text(node));
            let of_tcp = text("protocol").is_none_or(|protocol| protocol == "tcp");
            if text("mode").as_deref() != Some("host") || !of_tcp {
                continue;
            }
            let published = text("published").and_then(|port| port.parse().ok()).unwrap_or(0);
            match text("target").and_then(|port| port.parse().ok()) {
                Some(target) => ports.push(HostPort { target, published }),
                None => self.problem(node.place, "target must be a port"),
            }
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The networks or secrets of the file, by the names that Docker has for them.
    fn names(&mut self, top: &Map, kind: &str) -> Names {
        let mut names = Names::new();
        let Some(node) = top.get(kind).filter(|node| !node.is_null()) else { return names };
        let Some(all) = self.map(node, kind) else { return names };
        for (key, node) in all.iter() {
            let empty = Map::default();
            let parts = match &node.value {
                Value::Map(map) => map,
                _ => &empty,
            };
            let external = parts.get("external").filter(|node| !node.is_null());
            let given = match external.map(|node| &node.value) {
                Some(Value::Map(map)) => map.get("name"),
                _ => None,
            };
            let given = given.or_else(|| parts.get("name")).and_then(|node| self.text(node));
            let is_external = match external {
                Some(node) => self.text_or_map(node) != Some("false".to_owned()),
                None => false,
            };
            let in_stack = format!("{}_{}", self.stack_name, key.text);
            let own = if is_external { key.text.clone() } else { in_stack };
            let given = given.filter(|name| !name.is_empty());
            names.insert(key.text.clone(), given.unwrap_or(own));
        }
        names
    }

    fn text_or_map(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar(_) => self.text(node),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// A scalar with its variables replaced; `None` when it is none, which is told.
    fn text(&mut self, node: &Node) -> Option<String> {
        let Value::Scalar(scalar) = &node.value else {
            self.problem(node.place, "must be a text, not a list or a map");
            return None;
        };
        if node.is_null() {
            return Some(String::new());
        }
        match replace(&scalar.text, self.environment) {
            Ok(replaced) => {
                for name in replaced.unset {
                    if self.unset.insert(name.clone()) {
                        let reason = format!("variable {name} is not set: it is taken as empty");
                        self.remark(Severity::Warning, node.place, ("", ""), &reason);
                    }
                }
                Some(replaced.text.into_owned())
            }
            Err(reason) => {
                self.problem(node.place, reason);
                None
            }
        }
    }

    fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n Map> {
        match &node.value {
            Value::Map(map) => Some(map),
            _ => {
                self.problem(node.place, format!("{what} must be a map"));
                None
            }
        }
    }

    fn problem(&mut self, place: Place, reason: impl Into<String>) {
        self.remark(Severity::Problem, place, ("", ""), &reason.into());
    }

    fn remark(
        &mut self,
        severity: Severity,
        place: Place,
        (label, value): (&str, &str),
        reason: &str,
    ) {
        self.stack.remarks.push(Remark {
            severity,
            place,
            service: self.service.clone(),
            label: label.to_owned(),
            value: value.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests;
