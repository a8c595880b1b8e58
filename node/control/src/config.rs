//! The cluster keys of a member's `--config` file: what enters the log as `ApplyConfig`.
//!
//! The file is Interlock's: its keys are matched without regard to case. Keys
//! of the process (addresses, flags) belong to whoever builds the process; this
//! module only knows that they exist. A key that is not honoured is a warning, so
//! that an operator's existing file is taken as it is; a value that cannot be
//! used, or that would carry a secret into the log, is an error.

use std::fmt;

use dovetail_routing::entry::{ClusterConfig, ProxyOptions};
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::Digest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use value::{bool_of, duration_of, size_of, text_of};

mod keys;
mod value;

/// Largest file that is read.
pub const FILE_BYTES_MAX: usize = 1_024 * 1_024;
/// Extensions that one file may name.
pub const EXTENSIONS_MAX: usize = 100;

/// What a file says about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterKeys {
    /// `None` when the file has no cluster key, so that it seeds nothing.
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
    pub reason: &'static str,
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
        InvalidConfig { line, column, key: None, reason: error.message().to_owned() }
    })?;
    file.refuse_secrets("", table.get_ref())?;
    let config = file.cluster(table.get_ref(), process_keys)?;
    Ok(ClusterKeys { config, warnings: file.remarks })
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

    fn remark(&mut self, at: usize, key: &str, reason: &'static str) {
        let (line, column) = self.place(at);
        self.remarks.push(Remark { line, column, key: key.to_owned(), reason });
    }

    /// A key or a value that holds a secret must not reach the log.
    fn refuse_secrets(&self, path: &str, table: &DeTable<'_>) -> Result<(), InvalidConfig> {
        for (key, value) in table {
            let path = join(path, key.get_ref());
            if keys::is_secret(key.get_ref()) {
                let given = text_of(value.get_ref()).unwrap_or_default();
                let named = given.strip_prefix("secret:").is_some_and(|name| !name.is_empty());
                let empty = given.is_empty() && text_of(value.get_ref()).is_some();
                if !named && !empty {
                    return Err(self.invalid(
                        value.span().start,
                        &path,
                        "a secret must not stand in the file: name a Docker secret with secret:NAME",
                    ));
                }
            }
            self.refuse_pem(&path, value)?;
            if let DeValue::Table(below) = value.get_ref() {
                self.refuse_secrets(&path, below)?;
            }
        }
        Ok(())
    }

    fn refuse_pem(&self, path: &str, value: &Spanned<DeValue<'_>>) -> Result<(), InvalidConfig> {
        match value.get_ref() {
            DeValue::String(text) if text.contains("-----BEGIN ") => Err(self.invalid(
                value.span().start,
                path,
                "key material must not stand in the file: name a Docker secret with secret:NAME",
            )),
            DeValue::Array(values) => values.iter().try_for_each(|value| {
                if let DeValue::Table(below) = value.get_ref() {
                    self.refuse_secrets(path, below)?;
                }
                self.refuse_pem(path, value)
            }),
            _ => Ok(()),
        }
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
            match path.to_ascii_lowercase().as_str() {
                "pollinterval" => {
                    found = true;
                    let pause = duration_of(value.get_ref(), keys::POLL_INTERVAL)
                        .map_err(|reason| self.invalid(value.span().start, path, reason))?;
                    config.poll_interval = Some(pause);
                }
                "extensions" => {
                    found = true;
                    config.proxies = self.extensions(path, value)?;
                }
                other if keys::PROCESS.contains(&other) => {}
                other => {
                    let plain = keys::plain(other);
                    if !process_keys.iter().any(|known| keys::plain(known) == plain) {
                        self.remark(at, path, keys::UNKNOWN);
                    }
                }
            }
        }
        if !found {
            return Ok(None);
        }
        config.source = source_of(&config);
        Ok(Some(config))
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

    fn extension(
        &mut self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(ServiceCluster, ProxyOptions), InvalidConfig> {
        let mut cluster = ServiceCluster::default();
        let mut options = ProxyOptions::default();
        let table = self.table(path, value)?;
        for (key, value) in self.unique(path, table)? {
            let path = join(path, key.get_ref());
            match key.get_ref().to_ascii_lowercase().as_str() {
                "servicecluster" => {
                    let at = value.span().start;
                    let name = text_of(value.get_ref())
                        .ok_or_else(|| self.invalid(at, &path, "must be a text"))?;
                    cluster =
                        name.parse().map_err(|error: dovetail_routing::names::InvalidName| {
                            self.invalid(at, &path, error.to_string())
                        })?;
                }
                "config" => options = self.options(&path, value)?,
                other if keys::EXTENSION.contains(&other) => {
                    self.remark(key.span().start, &path, keys::NOT_HONOURED);
                }
                _ => self.remark(key.span().start, &path, keys::UNKNOWN),
            }
        }
        Ok((cluster, options))
    }

    fn options(
        &mut self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<ProxyOptions, InvalidConfig> {
        let mut options = ProxyOptions::default();
        let table = self.table(path, value)?;
        for (key, value) in self.unique(path, table)? {
            let path = join(path, key.get_ref());
            let given = value.get_ref();
            let known = match key.get_ref().to_ascii_lowercase().as_str() {
                "hideinfoheaders" => bool_of(given).map(|hide| options.hide_info_headers = hide),
                "connecttimeout" => {
                    duration_of(given, keys::TIMEOUT).map(|t| options.connect_timeout = Some(t))
                }
                "readtimeout" => {
                    duration_of(given, keys::TIMEOUT).map(|t| options.read_timeout = Some(t))
                }
                "sendtimeout" => {
                    duration_of(given, keys::TIMEOUT).map(|t| options.send_timeout = Some(t))
                }
                "keepalivetimeout" => {
                    duration_of(given, keys::TIMEOUT).map(|t| options.keepalive_timeout = Some(t))
                }
                "clientmaxbodysize" => {
                    size_of(given).map(|bytes| options.client_max_body_size = Some(bytes))
                }
                other => {
                    let reason = if keys::EXTENSION_CONFIG.contains(&other) {
                        keys::NOT_HONOURED
                    } else {
                        keys::UNKNOWN
                    };
                    self.remark(key.span().start, &path, reason);
                    Ok(())
                }
            };
            known.map_err(|reason| self.invalid(value.span().start, &path, reason))?;
        }
        Ok(options)
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
        for (position, (key, _)) in pairs.iter().enumerate() {
            let earlier = pairs[..position]
                .iter()
                .any(|(k, _)| k.get_ref().eq_ignore_ascii_case(key.get_ref()));
            if earlier {
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

/// A hash of the cluster keys alone: files that differ in a member's own keys, in
/// comments or in order seed the same configuration.
fn source_of(config: &ClusterConfig) -> Digest {
    // The form in which the log carries it says everything, and the same thing once.
    Digest(*blake3::hash(&dovetail_proto::convert::encode_config(config)).as_bytes())
}

#[cfg(test)]
mod tests;
