//! Flag before environment before file: one meaning for `--config` in every executable.
//!
//! An executable declares its flags with clap (`#[arg(long, env = "DOVETAIL_…")]`), among
//! them `--config FILE`. A top-level key of that TOML file stands for the flag of the
//! same name, whatever its case and without regard to `-` and `_`: `DataDir`, `data_dir`
//! and `data-dir` are `--data-dir`. Interlock's names are aliases of a flag.

mod file;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

pub use self::file::ConfigFile;
use self::file::plain;

/// The flags of a process, and what else its file holds.
#[derive(Debug)]
pub struct Parsed<A> {
    /// The flags.
    pub args: A,
    /// The file, whose cluster keys somebody else reads.
    pub file: Option<ConfigFile>,
    /// One line for each key that nobody reads; to be logged as warnings.
    pub warnings: Vec<String>,
}

/// Arguments that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is wrong, or asks for help.
    #[error("{}", usage_line(.0))]
    Usage(clap::Error),
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {reason}")]
    Syntax {
        /// File, line and column.
        place: String,
        /// Why not.
        reason: String,
    },
    /// A key of the file cannot be used.
    #[error("{place}: key {key}: {reason}")]
    Key {
        /// File, line and column.
        place: String,
        /// The key as it is written.
        key: String,
        /// Why not.
        reason: String,
    },
}

/// The flags of this process, with `--config` taken into account. Ends the process, as
/// clap does, when they cannot be used or help is asked for.
///
/// `cluster_keys` are the other top-level keys that the executable knows.
pub fn args_with_config<A: clap::Parser>(cluster_keys: &[&str]) -> Parsed<A> {
    match parse_from(std::env::args_os(), cluster_keys) {
        Ok(parsed) => parsed,
        Err(ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            crate::exit::say(&crate::chain(&error));
            std::process::exit(2)
        }
    }
}

/// As [`args_with_config`], from any arguments, the first being the executable's name.
pub fn parse_from<A: clap::Parser>(
    args: impl IntoIterator<Item = impl Into<OsString>>,
    cluster_keys: &[&str],
) -> Result<Parsed<A>, ConfigError> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let mut command = A::command();
    let file = match config_path(&command, &args) {
        Some(path) => Some(ConfigFile::read(&path)?),
        None => None,
    };
    let mut taken = Vec::new();
    let mut warnings = Vec::new();
    if let Some(file) = &file {
        (taken, warnings) = take_keys(&command, file, cluster_keys)?;
    }
    for default in &taken {
        let texts = default.texts.clone();
        command =
            command.mut_arg(default.id.clone(), |arg| arg.required(false).default_values(texts));
    }
    let matched = command
        .try_get_matches_from(args)
        .and_then(|mut matches| A::from_arg_matches_mut(&mut matches));
    match matched {
        Ok(args) => Ok(Parsed { args, file, warnings }),
        Err(error) => Err(blame(error, &taken)),
    }
}

/// A key of the file that stands for a flag.
struct Default {
    id: String,
    long: String,
    texts: Vec<String>,
    key: String,
    place: String,
}

/// Where `--config` or its environment variable points, if the command has it.
fn config_path(command: &Command, args: &[OsString]) -> Option<PathBuf> {
    let lenient = command.clone().ignore_errors(true).mut_args(|arg| arg.required(false));
    let matches = lenient.try_get_matches_from(args).ok()?;
    let mut values = matches.try_get_raw("config").ok()??;
    values.next().map(|value| Path::new(value).to_owned())
}

fn take_keys(
    command: &Command,
    file: &ConfigFile,
    cluster_keys: &[&str],
) -> Result<(Vec<Default>, Vec<String>), ConfigError> {
    let mut taken: Vec<Default> = Vec::new();
    let mut warnings = Vec::new();
    for (key, value) in file.table() {
        let place = file.place_of(key);
        let wrong =
            |reason: String| ConfigError::Key { place: place.clone(), key: key.clone(), reason };
        let Some((arg, long)) = find_arg(command, key) else {
            if !cluster_keys.iter().any(|known| plain(known) == plain(key)) {
                warnings.push(format!("{place}: key {key} is not known"));
            }
            continue;
        };
        if let Some(twice) = taken.iter().find(|default| default.id == arg.get_id().as_str()) {
            return Err(wrong(format!("is set already by {} at {}", twice.key, twice.place)));
        }
        let texts = texts_of(arg, value).map_err(wrong)?;
        if texts.is_empty() {
            continue;
        }
        taken.push(Default { id: arg.get_id().to_string(), long, texts, key: key.clone(), place });
    }
    Ok((taken, warnings))
}

/// The flag for which a key stands.
fn find_arg<'a>(command: &'a Command, key: &str) -> Option<(&'a Arg, String)> {
    command.get_arguments().find_map(|arg| {
        let long = arg.get_long()?;
        let own = matches!(long, "config" | "help" | "version");
        let aliases = arg.get_all_aliases().unwrap_or_default();
        let named = std::iter::once(long).chain(aliases).any(|name| plain(name) == plain(key));
        (named && !own).then(|| (arg, long.to_owned()))
    })
}

/// A value of the file as clap takes it from a command line.
fn texts_of(arg: &Arg, value: &toml::Value) -> Result<Vec<String>, String> {
    let toml::Value::Array(values) = value else { return Ok(vec![text_of(value)?]) };
    let texts = values.iter().map(text_of).collect::<Result<Vec<_>, _>>()?;
    match (arg.get_value_delimiter(), arg.get_action()) {
        (Some(delimiter), _) => {
            Ok(if texts.is_empty() { texts } else { vec![texts.join(&delimiter.to_string())] })
        }
        (None, ArgAction::Append) => Ok(texts),
        _ => Err("takes one value, not a list".to_owned()),
    }
}

fn text_of(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(truth) => Ok(truth.to_string()),
        toml::Value::Datetime(when) => Ok(when.to_string()),
        toml::Value::Array(_) => Err("a list inside of a list".to_owned()),
        toml::Value::Table(_) => Err("a table, where one value is expected".to_owned()),
    }
}

/// Names the file's key when it is its value that clap refuses.
fn blame(error: clap::Error, taken: &[Default]) -> ConfigError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (Some(arg), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue))
    else {
        return ConfigError::Usage(error);
    };
    let flag = arg.split_whitespace().next().unwrap_or_default();
    let guilty = taken.iter().find(|default| {
        flag == format!("--{}", default.long)
            && default.texts.iter().any(|text| text == value || text.contains(value))
    });
    let Some(default) = guilty else { return ConfigError::Usage(error) };
    let reason = match std::error::Error::source(&error) {
        Some(source) => format!("{value:?}: {source}"),
        None if error.kind() == ErrorKind::InvalidValue => {
            let valid = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) => valid.join(", "),
                _ => "another value".to_owned(),
            };
            format!("{value:?} is not one of {valid}")
        }
        None => format!("{value:?} is not valid"),
    };
    ConfigError::Key { place: default.place.clone(), key: default.key.clone(), reason }
}

/// The first line of a usage error, without its prefix.
fn usage_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests;
