//! The files of a command line: what they plan, and where each part of it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use dovetail_config::planned::{Plan, SERVICES_MAX};
use dovetail_routing::entry::ClusterConfig;

use super::compose::{self, Environment};
use super::yaml;
use crate::failure::Failure;

/// Bytes of one file.
const FILE_BYTES_MAX: usize = 1_024 * 1_024;
/// Files of one command line.
const FILES_MAX: usize = 100;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// As the command line names it.
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Whether something fails a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Problem,
    Warning,
}

/// Something that was found. What is about no service or label has it empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// `None` when it is about something that stands in no file.
    pub(crate) place: Option<Place>,
    pub(crate) service: String,
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) reason: String,
}

/// What files say, together.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) plan: Plan,
    /// Of the configuration files.
    pub(crate) config: Option<ClusterConfig>,
    pub(crate) findings: Vec<Finding>,
    /// By service, and by its label; the service itself is under no label.
    places: BTreeMap<(String, Option<String>), Place>,
    /// Where the configuration in `config` stands.
    configured: Option<String>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stack,
    Config,
}

impl Files {
    /// Reads files. `stacks` names the stack of all of them, or of each.
    pub(crate) fn read(
        names: &[String],
        stacks: &[String],
        environment: Environment<'_>,
    ) -> Result<Self, Failure> {
        if names.len() > FILES_MAX {
            return Err(Failure::Usage(format!("more than {FILES_MAX} files")));
        }
        let mut texts = Vec::new();
        for name in names {
            let text = read(name)?;
            texts.push((name, kind(name, &text), text));
        }
        let count = texts.iter().filter(|(_, kind, _)| *kind == Kind::Stack).count();
        if stacks.len() > 1 && stacks.len() != count {
            return Err(Failure::Usage(format!(
                "--stack is given {} times for {count} stack files: give it once, or once for each",
                stacks.len()
            )));
        }
        let mut files = Self::default();
        let mut position = 0;
        for (name, kind, text) in &texts {
            match kind {
                Kind::Config => files.take_config(name, text),
                Kind::Stack => {
                    let stack = stacks.get(position).or(stacks.first());
                    files.take_stack(
                        name,
                        text,
                        stack.map_or("stack", String::as_str),
                        environment,
                    );
                    position += 1;
                }
            }
        }
        if files.plan.services.len() > SERVICES_MAX {
            return Err(Failure::Usage(format!("more than {SERVICES_MAX} services")));
        }
        files.findings.sort();
        Ok(files)
    }

    /// Whether a configuration file is among them.
    pub(crate) fn configured(&self) -> bool {
        self.configured.is_some()
    }

    /// Where a label of a service stands, or else the service.
    fn place(&self, service: &str, label: &str) -> Option<Place> {
        let service = service.to_owned();
        let of_label = self.places.get(&(service.clone(), Some(label.to_owned())));
        of_label.or_else(|| self.places.get(&(service, None))).cloned()
    }

    /// Adds what was found out about a service, at the place of its label.
    pub(crate) fn add(
        &mut self,
        severity: Severity,
        service: &str,
        (label, value): (&str, &str),
        reason: String,
    ) {
        self.findings.push(Finding {
            severity,
            place: self.place(service, label),
            service: service.to_owned(),
            label: label.to_owned(),
            value: value.to_owned(),
            reason,
        });
    }

    fn take_stack(&mut self, file: &str, text: &str, stack: &str, environment: Environment<'_>) {
        let place =
            |at: yaml::Place| Place { file: file.to_owned(), line: at.line, column: at.column };
        let read = match compose::read(text, stack, environment) {
            Ok(read) => read,
            Err(error) => {
                self.problem(place(error.place), error.reason);
                return;
            }
        };
        for remark in read.remarks {
            self.findings.push(Finding {
                severity: remark.severity,
                place: Some(place(remark.place)),
                service: remark.service,
                label: remark.label,
                value: remark.value,
                reason: remark.reason,
            });
        }
        self.plan.secrets.extend(read.secrets);
        for service in read.services {
            let name = service.planned.name.clone();
            if let Some(known) = self.places.get(&(name.clone(), None)) {
                let reason = format!(
                    "service {name} is in {known} too: files are not merged, but each may be a \
                     stack of its own (--stack once for each)"
                );
                self.problem(place(service.place), reason);
                continue;
            }
            self.places.insert((name.clone(), None), place(service.place));
            for (label, at) in service.labels {
                self.places.insert((name.clone(), Some(label)), place(at));
            }
            self.plan.services.push(service.planned);
        }
    }

    fn take_config(&mut self, file: &str, text: &str) {
        let place = |line, column| Place { file: file.to_owned(), line, column };
        match dovetail_config::parse(text, dovetail_config::FLAGS) {
            Ok(keys) => {
                self.findings.extend(keys.warnings.into_iter().map(|remark| Finding {
                    severity: Severity::Warning,
                    place: Some(place(remark.line, remark.column)),
                    service: String::new(),
                    label: remark.key,
                    value: String::new(),
                    reason: remark.reason,
                }));
                match (&self.configured, keys.config) {
                    (_, None) => {}
                    (Some(other), Some(config)) if self.config.as_ref() != Some(&config) => {
                        let reason = format!("says something else than {other}");
                        self.problem(place(1, 1), reason);
                    }
                    (_, config) => self.config = config,
                }
            }
            Err(error) => self.findings.push(Finding {
                severity: Severity::Problem,
                place: Some(place(error.line, error.column)),
                service: String::new(),
                label: error.key.unwrap_or_default(),
                value: String::new(),
                reason: error.reason,
            }),
        }
        self.configured.get_or_insert_with(|| file.to_owned());
    }

    fn problem(&mut self, place: Place, reason: String) {
        self.findings.push(Finding {
            severity: Severity::Problem,
            place: Some(place),
            service: String::new(),
            label: String::new(),
            value: String::new(),
            reason,
        });
    }
}

/// By the end of its name; a file with another end is TOML if it can be.
fn kind(name: &str, text: &str) -> Kind {
    let end = Path::new(name).extension().and_then(|end| end.to_str()).unwrap_or_default();
    match end.to_ascii_lowercase().as_str() {
        "toml" => Kind::Config,
        "yml" | "yaml" | "json" => Kind::Stack,
        _ if dovetail_config::is_toml(text) => Kind::Config,
        _ => Kind::Stack,
    }
}

/// The text of a file; `-` is the standard input.
fn read(name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let most = FILE_BYTES_MAX as u64 + 1;
    let read = if name == "-" {
        std::io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(name).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::Usage(format!("read {name}: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Failure::Usage(format!("{name}: longer than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("{name}: is not UTF-8")))
}
