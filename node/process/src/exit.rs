//! How a process ends when it cannot go on: one line, and a code.

use std::error::Error;
use std::process::ExitCode;

use crate::log::chain;

/// Prints exactly one line about `error` on standard error and yields code 1.
pub fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    fail_with(error, 1)
}

/// As [`fail`], with another code.
pub fn fail_with(error: &(dyn Error + 'static), code: u8) -> ExitCode {
    say(&chain(error));
    ExitCode::from(code)
}

/// Prints one line on standard error, with the executable's name before it.
#[expect(clippy::print_stderr, reason = "the last word of a process that may have no log yet")]
pub fn say(line: &str) {
    eprintln!("{}: {}", name(), one_line(line));
}

fn name() -> String {
    std::env::args_os()
        .next()
        .and_then(|path| {
            std::path::Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| "dovetail".to_owned())
}

/// `text` on one line, without control characters.
fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_one_line() {
        assert_eq!(one_line("a\n\n  b\u{1b}[31m\tc\n"), "a; b[31mc");
    }
}
