//! The TOML file, with the place of each key.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Far above any configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration file that was read.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    table: toml::Table,
    /// Byte offset of each top-level key.
    offsets: BTreeMap<String, usize>,
}

impl ConfigFile {
    /// Reads a file, and refuses what is not TOML or holds key material.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |error| ConfigError::Read { path: path.to_owned(), error };
        let mut text = String::new();
        fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(failed(std::io::Error::other(format!(
                "longer than {FILE_BYTES_MAX} bytes"
            ))));
        }
        Self::parse(path, text)
    }

    fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            place: place(path, &text, error.span().map_or(0, |span| span.start)),
            // One line, whatever the parser has to say.
            reason: error.message().replace('\n', ", "),
        };
        let spanned = DeTable::parse(&text).map_err(syntax)?;
        let mut offsets = BTreeMap::new();
        for (key, value) in spanned.get_ref() {
            offsets.insert(key.get_ref().to_string(), key.span().start);
            if let Some(offset) = key_material(value.get_ref(), value.span().start) {
                return Err(ConfigError::Key {
                    place: place(path, &text, offset),
                    key: key.get_ref().to_string(),
                    reason: "holds key material: put it into a Docker secret and write \
                             secret:NAME"
                        .to_owned(),
                });
            }
        }
        let table = text.parse::<toml::Table>().map_err(syntax)?;
        Ok(Self { path: path.to_owned(), text, table, offsets })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it holds.
    pub fn table(&self) -> &toml::Table {
        &self.table
    }

    /// The value of a top-level key, whatever its case and without regard to `-` and `_`.
    pub fn get(&self, key: &str) -> Option<&toml::Value> {
        self.table.iter().find(|(name, _)| plain(name) == plain(key)).map(|(_, value)| value)
    }

    /// `FILE:LINE:COLUMN` of a top-level key.
    pub fn place_of(&self, key: &str) -> String {
        place(&self.path, &self.text, self.offsets.get(key).copied().unwrap_or(0))
    }
}

/// A name without case, `-` and `_`.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

fn place(path: &Path, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{}:{line}:{column}", path.display())
}

/// Where a value, or one inside of it, begins that holds a PEM header.
fn key_material(value: &DeValue<'_>, at: usize) -> Option<usize> {
    match value {
        DeValue::String(text) => text.contains("-----BEGIN").then_some(at),
        DeValue::Array(values) => {
            values.iter().find_map(|value| key_material(value.get_ref(), value.span().start))
        }
        DeValue::Table(table) => {
            table.iter().find_map(|(_, value)| key_material(value.get_ref(), value.span().start))
        }
        _ => None,
    }
}
