//! Printing: tables that fit the terminal, JSON, colours only on a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use dovetail_proto::v1 as pb;
use serde::Serialize;

use crate::args::Output;
use crate::failure::Failure;

/// Where answers go.
#[derive(Debug)]
pub(crate) struct Out {
    format: Output,
    colours: bool,
    width: Option<u16>,
}

/// How a cell strikes the eye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

impl Out {
    pub(crate) fn new(format: Output) -> Self {
        let terminal = io::stdout().is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Self {
            format,
            colours: terminal && std::env::var_os("NO_COLOR").is_none(),
            width: columns.filter(|columns| *columns >= 20),
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Output::Json
    }

    /// Prints one JSON value on one line.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<ExitCode, Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::Refused(format!("write the answer as JSON: {error}")))?;
        self.line(&text)
    }

    /// Prints a line.
    pub(crate) fn line(&self, line: &str) -> Result<ExitCode, Failure> {
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        match written {
            Ok(()) => Ok(ExitCode::SUCCESS),
            // Whoever read the answer has seen enough, as `head` has.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                std::process::exit(0);
            }
            Err(error) => Err(Failure::Refused(format!("write to standard output: {error}"))),
        }
    }

    /// Clears the terminal, if there is one.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        if io::stdout().is_terminal() && !self.is_json() {
            self.line("\u{1b}[2J\u{1b}[H")?;
        }
        Ok(())
    }

    /// An empty table with these headings.
    pub(crate) fn table(&self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(headings.iter().map(|heading| {
            let cell = Cell::new(heading);
            if self.colours { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
        match self.width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            }
            // comfy-table asks the terminal for its width.
            None if io::stdout().is_terminal() => {
                table.set_content_arrangement(ContentArrangement::Dynamic);
            }
            // A file or a pipe: one line for each row.
            None => {}
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }

    /// A cell of text that somebody else wrote.
    pub(crate) fn cell(&self, text: impl AsRef<str>, tone: Tone) -> Cell {
        let cell = Cell::new(printable(text.as_ref()));
        match tone {
            _ if !self.colours => cell,
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Warn => cell.fg(Color::Yellow),
            Tone::Bad => cell.fg(Color::Red),
        }
    }

    /// Says how old a stale answer may be: beside JSON, whose form is fixed, on standard error.
    pub(crate) fn age(&self, freshness: Option<&pb::Freshness>) -> Result<(), Failure> {
        let Some(pb::Freshness { index, age_ms }) = freshness else { return Ok(()) };
        let age = format!("as of index {index}; that member heard the leader {age_ms} ms ago");
        if self.is_json() {
            dovetail_process::exit::say(&age);
        } else {
            self.line(&age)?;
        }
        Ok(())
    }

    /// Prints a table, or `nothing` when it has no rows.
    pub(crate) fn print(&self, table: &Table, nothing: &str) -> Result<ExitCode, Failure> {
        if table.row_count() == 0 {
            return self.line(nothing);
        }
        let text = table.to_string();
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        self.line(&lines.join("\n"))
    }
}

/// Text without control characters, which could write anything on a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let shown: Box<dyn Iterator<Item = char>> = if character.is_control() {
                Box::new(character.escape_default())
            } else {
                Box::new(std::iter::once(character))
            };
            shown
        })
        .collect()
}

/// The name of a service cluster; the default one's is empty.
pub(crate) fn service_cluster(name: &str) -> &str {
    if name.is_empty() { "(default)" } else { name }
}

/// Basis points as a percentage, without needless zeros.
pub(crate) fn share(basis_points: u32) -> String {
    let (whole, part) = (basis_points / 100, basis_points % 100);
    match part {
        0 => format!("{whole}%"),
        part if part % 10 == 0 => format!("{whole}.{}%", part / 10),
        part => format!("{whole}.{part:02}%"),
    }
}

/// The beginning of a digest: enough to compare by eye.
pub(crate) fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!([10_000, 3_334, 50, 5, 0].map(share), ["100%", "33.34%", "0.5%", "0.05%", "0%"]);
    }

    #[test]
    fn a_label_cannot_write_on_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(printable("größe …"), "größe …");
    }
}
