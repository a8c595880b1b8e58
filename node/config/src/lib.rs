//! Interlock's configuration file: what it says about the cluster, and what is wrong with it.
//!
//! ```text
//!  text ─► parse ─► ClusterKeys { config, warnings }   a member seeds the log with it,
//!                └► InvalidConfig (line, column, key)  `dovetail check` prints it
//!  ClusterConfig ─► render ─► text that is read as the same   `dovetail config show`
//! ```
//!
//! The file is Interlock's: its keys are matched without regard to case, numbers may
//! be given as text and the other way round. Keys of the process (addresses, flags)
//! belong to whoever builds the process; this crate only knows that they exist. A key
//! that is not honoured is a warning, so that an operator's existing file is taken as
//! it is; a value that cannot be used, or that would carry a secret into the log, is
//! an error.
//!
//! Pure: no file is opened here, and nothing is asked of a clock or of Docker.
//!
//! * [`access_format`]: the format of access-log lines in NGINX's words;
//! * [`planned`]: services that are not there yet, as the facts that Swarm would show.

use std::fmt;

use dovetail_routing::entry::{ClusterConfig, ProxyOptions};
use dovetail_routing::names::ServiceCluster;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use value::{bool_of, duration_of};

pub mod access_format;
mod ciphers;
mod extension;
mod keys;
mod options;
pub mod planned;
mod render;
mod secrets;
mod value;

pub use keys::FLAGS;
pub use render::render;

/// Largest file that is read.
pub const FILE_BYTES_MAX: usize = 1_024 * 1_024;
/// Extensions that one file may name.
pub const EXTENSIONS_MAX: usize = 100;

/// What a file says about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterKeys {
    /// `None` when the file has no cluster key, so that it seeds nothing. Its
    /// `source` is for whoever seeds to fill in.
    pub config: Option<ClusterConfig>,
    /// Keys without effect, each with its place: for the log of the process.
    pub warnings: Vec<Remark>,
}

/// A remark about one key of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub line: usize,
    pub column: usize,
    pub key: String,
    pub reason: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}: {}", self.line, self.column, self.key, self.reason)
    }
}

/// Why a file was refused. A secret's value is never part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}{}: {reason}", .key.as_ref().map(|key| format!(": {key}")).unwrap_or_default())]
pub struct InvalidConfig {
    pub line: usize,
    pub column: usize,
    /// The key with its path; `None` for an error of syntax.
    pub key: Option<String>,
    pub reason: String,
}

/// Reads the cluster keys of a file.
///
/// `process_keys` are the top-level keys that the process takes itself; they are
/// compared without regard to case, hyphens and underscores.
pub fn parse(text: &str, process_keys: &[&str]) -> Result<ClusterKeys, InvalidConfig> {
    let mut file = File { text, remarks: Vec::new() };
    if text.len() > FILE_BYTES_MAX {
        return Err(InvalidConfig {
            line: 1,
            column: 1,
            key: None,
            reason: format!("the file has {} bytes, at most {FILE_BYTES_MAX} are read", text.len()),
        });
    }
    let table = DeTable::parse(text).map_err(|error| {
        let (line, column) = file.place(error.span().map_or(0, |span| span.start));
        // One line, whatever the parser has to say.
        InvalidConfig { line, column, key: None, reason: error.message().replace('\n', ", ") }
    })?;
    file.refuse_secrets("", table.get_ref())?;
    let config = file.cluster(table.get_ref(), process_keys)?;
    file.remarks.sort_by_key(|remark| (remark.line, remark.column));
    Ok(ClusterKeys { config, warnings: file.remarks })
}

/// Whether a text is TOML that says something.
pub fn is_toml(text: &str) -> bool {
    DeTable::parse(text).is_ok_and(|table| !table.get_ref().is_empty())
}

/// A file at work: its text, to name places, and the remarks so far.
struct File<'t> {
    text: &'t str,
    remarks: Vec<Remark>,
}

impl File<'_> {
    /// The line and column of a byte, both from 1.
    fn place(&self, at: usize) -> (usize, usize) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[start..].chars().count() + 1)
    }

    fn invalid(&self, at: usize, key: &str, reason: impl Into<String>) -> InvalidConfig {
        let (line, column) = self.place(at);
        InvalidConfig { line, column, key: Some(key.to_owned()), reason: reason.into() }
    }

    fn remark(&mut self, at: usize, key: &str, reason: impl Into<String>) {
        let (line, column) = self.place(at);
        self.remarks.push(Remark { line, column, key: key.to_owned(), reason: reason.into() });
    }

    fn cluster(
        &mut self,
        table: &DeTable<'_>,
        process_keys: &[&str],
    ) -> Result<Option<ClusterConfig>, InvalidConfig> {
        let mut config = ClusterConfig::default();
        let mut found = false;
        for (key, value) in self.unique("", table)? {
            let (at, path) = (key.span().start, key.get_ref().as_ref());
            let given = value.get_ref();
            let wrong = |file: &Self, reason| file.invalid(value.span().start, path, reason);
            match path.to_ascii_lowercase().as_str() {
                "pollinterval" => {
                    found = true;
                    let pause = duration_of(given, keys::POLL_INTERVAL)
                        .map_err(|reason| wrong(self, reason))?;
                    config.poll_interval = Some(pause);
                }
                "extensions" => {
                    found = true;
                    config.proxies = self.extensions(path, value)?;
                }
                "endpointoverride" => {
                    self.remark(at, path, keys::without_effect(keys::ENDPOINT_OVERRIDE));
                }
                "allowinsecure" => {
                    bool_of(given).map_err(|reason| wrong(self, reason))?;
                }
                other if keys::PROCESS.iter().any(|known| known.eq_ignore_ascii_case(other)) => {
                    value::plain_text_of(given).map_err(|reason| wrong(self, reason))?;
                }
                other => {
                    let plain = keys::plain(other);
                    if !process_keys.iter().any(|known| keys::plain(known) == plain) {
                        self.remark(at, path, keys::unknown(path, keys::Level::Top));
                    }
                }
            }
        }
        Ok(found.then_some(config))
    }

    fn extensions(
        &mut self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<(ServiceCluster, ProxyOptions)>, InvalidConfig> {
        let table = self.table(path, value)?;
        let extensions = self.unique(path, table)?;
        if extensions.len() > EXTENSIONS_MAX {
            return Err(self.invalid(
                value.span().start,
                path,
                format!("{} extensions, at most {EXTENSIONS_MAX} may be named", extensions.len()),
            ));
        }
        let mut proxies = Vec::<(ServiceCluster, ProxyOptions)>::new();
        for (name, value) in extensions {
            let path = join(path, name.get_ref());
            let (cluster, options) = self.extension(&path, value)?;
            match proxies.iter().find(|(known, _)| *known == cluster) {
                Some((_, known)) if *known != options => {
                    return Err(self.invalid(
                        name.span().start,
                        &path,
                        format!(
                            "another extension gives other options to service cluster {:?}",
                            cluster.as_str()
                        ),
                    ));
                }
                Some(_) => {}
                None => proxies.push((cluster, options)),
            }
        }
        proxies.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(proxies)
    }

    fn table<'v, 't>(
        &self,
        path: &str,
        value: &'v Spanned<DeValue<'t>>,
    ) -> Result<&'v DeTable<'t>, InvalidConfig> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.invalid(value.span().start, path, "must be a table")),
        }
    }

    /// A table's keys in the order of the file, none twice whatever its case.
    fn unique<'v, 't>(
        &self,
        path: &str,
        table: &'v DeTable<'t>,
    ) -> Result<Vec<Pair<'v, 't>>, InvalidConfig> {
        let mut pairs: Vec<_> = table.iter().collect();
        pairs.sort_by_key(|(key, _)| key.span().start);
        let mut seen = std::collections::BTreeSet::new();
        for (key, _) in &pairs {
            if !seen.insert(key.get_ref().to_ascii_lowercase()) {
                let path = join(path, key.get_ref());
                return Err(self.invalid(
                    key.span().start,
                    &path,
                    "is given twice: keys are matched without regard to case",
                ));
            }
        }
        Ok(pairs)
    }
}

type Pair<'v, 't> = (&'v Spanned<std::borrow::Cow<'t, str>>, &'v Spanned<DeValue<'t>>);

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests;
