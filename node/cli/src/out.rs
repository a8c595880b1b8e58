//! Printing: tables that fit the terminal, JSON, colours only on a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::TimeZone;
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
    /// What is printed replaces what stands on the terminal, line by line.
    redraws: AtomicBool,
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
            redraws: AtomicBool::new(false),
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
        let framed = self.redraws.load(Ordering::Relaxed).then(|| framed(line));
        self.write(&format!("{}\n", framed.as_deref().unwrap_or(line)))
    }

    fn write(&self, text: &str) -> Result<ExitCode, Failure> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        match written {
            Ok(()) => Ok(ExitCode::SUCCESS),
            // Whoever read the answer has seen enough, as `head` has.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                std::process::exit(0);
            }
            Err(error) => Err(Failure::Refused(format!("write to standard output: {error}"))),
        }
    }

    /// Begins a picture that replaces the one before, if there is a terminal: in place, so
    /// that what has not changed does not flicker.
    pub(crate) fn begin_frame(&self) -> Result<(), Failure> {
        if !io::stdout().is_terminal() || self.is_json() {
            return Ok(());
        }
        let first = !self.redraws.swap(true, Ordering::Relaxed);
        self.write(if first { "\u{1b}[2J\u{1b}[H" } else { "\u{1b}[H" }).map(drop)
    }

    /// Ends a picture: what stood below it goes.
    pub(crate) fn end_frame(&self) -> Result<(), Failure> {
        if self.redraws.load(Ordering::Relaxed) {
            self.write("\u{1b}[J")?;
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

/// Lines that end what stood longer in their place.
fn framed(lines: &str) -> String {
    let ended: Vec<_> = lines.split('\n').map(|line| format!("{line}\u{1b}[K")).collect();
    ended.join("\n")
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

/// The leader's clock in the operator's zone; empty for an entry without a time.
pub(crate) fn time(ms: u64) -> String {
    time_in(ms, &chrono::Local)
}

fn time_in<Zone: TimeZone<Offset: std::fmt::Display>>(ms: u64, zone: &Zone) -> String {
    if ms == 0 {
        return String::new();
    }
    let known = i64::try_from(ms).ok().and_then(|ms| zone.timestamp_millis_opt(ms).single());
    match known {
        Some(time) => time.format("%Y-%m-%d %H:%M:%S%.3f %:z").to_string(),
        None => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_says_its_zone() {
        let east = chrono::FixedOffset::east_opt(19_800).expect("a zone");
        assert_eq!(time_in(1_700_000_000_123, &east), "2023-11-15 03:43:20.123 +05:30");
        assert_eq!(time_in(1_700_000_000_123, &chrono::Utc), "2023-11-14 22:13:20.123 +00:00");
        assert_eq!(time(0), "");
        assert_eq!(time(u64::MAX), format!("{} ms", u64::MAX));
    }

    #[test]
    fn a_frame_leaves_nothing_of_the_one_before() {
        assert_eq!(framed("a\nbb"), "a\u{1b}[K\nbb\u{1b}[K");
    }
}
