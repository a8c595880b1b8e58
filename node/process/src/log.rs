//! Logs on standard error, and errors with all their causes.

use std::error::Error;
use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The log cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter of `DOVETAIL_LOG` or `RUST_LOG` cannot be read.
    #[error("{variable}={value:?} is not a log filter, such as info or dovetail_control=debug")]
    Filter {
        /// The environment variable.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// Why not.
        #[source]
        error: tracing_subscriber::filter::ParseError,
    },
    /// Something else began one before.
    #[error("the log has already begun")]
    Begun,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        match given {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("log format {given:?}: it is text or json")),
        }
    }
}

/// Begins the log: `DOVETAIL_LOG`, else `RUST_LOG`, else `info`, to standard error.
pub fn init(format: Format) -> Result<(), LogError> {
    let filter = filter()?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let begun = match format {
        Format::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).try_init()
        }
        Format::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    begun.map_err(|_| LogError::Begun)
}

fn filter() -> Result<EnvFilter, LogError> {
    for variable in ["DOVETAIL_LOG", "RUST_LOG"] {
        let Ok(value) = std::env::var(variable) else { continue };
        if value.trim().is_empty() {
            continue;
        }
        return EnvFilter::try_new(&value).map_err(|error| LogError::Filter {
            variable,
            value,
            error,
        });
    }
    // openraft tells each failed heartbeat, many times a second; what an operator needs
    // of it is in our own lines and in the metrics.
    Ok(EnvFilter::new("info,openraft=error"))
}

/// The error and its causes, each once: `connect to upstream 10.0.0.7:80: refused`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let this = error.to_string();
        // Libraries often print their cause already, or wrap without a word of their own.
        if !this.is_empty() && !last.contains(&this) {
            text.push_str(": ");
            text.push_str(&this);
            last = this;
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Level {
        text: &'static str,
        #[source]
        cause: Option<Box<Level>>,
    }

    fn level(text: &'static str, cause: Option<Level>) -> Level {
        Level { text, cause: cause.map(Box::new) }
    }

    #[test]
    fn a_cause_is_printed_once() {
        let error = level("open store", Some(level("read MANIFEST", Some(level("denied", None)))));
        assert_eq!(chain(&error), "open store: read MANIFEST: denied");
        let repeating = level("dial: refused", Some(level("refused", None)));
        assert_eq!(chain(&repeating), "dial: refused");
        let transparent = level("refused", Some(level("refused", Some(level("111", None)))));
        assert_eq!(chain(&transparent), "refused: 111");
    }
}
