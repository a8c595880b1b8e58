//! What the demo prints: one line for each step, and a moving one while it takes long.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A step that takes longer says what it is doing, also where nothing can move.
const SAY_AFTER: Duration = Duration::from_secs(2);
/// The column where the measured time stands.
const TITLE_WIDTH: usize = 58;

/// Standard output, and whether all steps held so far.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    failed: Cell<usize>,
    steps: Cell<usize>,
    started: Instant,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { terminal, failed: Cell::new(0), steps: Cell::new(0), started: Instant::now() }
    }

    /// Whether every step held.
    pub(crate) fn all_held(&self) -> bool {
        self.failed.get() == 0 && self.steps.get() > 0
    }

    pub(crate) fn line(&self, line: &str) {
        // A closed pipe ends the telling, not the checks.
        let _ = writeln!(io::stdout(), "{line}");
    }

    /// Carries out a step and prints its time, and what it saw or why it failed.
    pub(crate) async fn step<W>(&self, title: &str, work: W) -> bool
    where
        W: Future<Output = anyhow::Result<String>>,
    {
        let begun = Instant::now();
        let outcome = self.watched(title, work).await;
        let took = format!("{:>7.2} s", begun.elapsed().as_secs_f64());
        self.steps.set(self.steps.get() + 1);
        let held = outcome.is_ok();
        match outcome {
            Ok(seen) => self.line(&format!("✓ {title:<TITLE_WIDTH$}{took}  {seen}")),
            Err(reason) => {
                self.failed.set(self.failed.get() + 1);
                self.line(&format!("✗ {title:<TITLE_WIDTH$}{took}"));
                self.block(&format!("{reason:#}"));
            }
        }
        held
    }

    async fn watched<W: Future>(&self, title: &str, work: W) -> W::Output {
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.set_message(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        tokio::pin!(work);
        let done = tokio::select! {
            done = &mut work => done,
            () = tokio::time::sleep(SAY_AFTER) => {
                if bar.is_none() {
                    self.line(&format!("  … {title}"));
                }
                work.await
            }
        };
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        done
    }

    /// Several lines, set in.
    pub(crate) fn block(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("    {line}"));
        }
    }

    /// The last line of the story.
    pub(crate) fn verdict(&self) {
        let took = self.started.elapsed().as_secs_f64();
        let (steps, failed) = (self.steps.get(), self.failed.get());
        if self.all_held() {
            self.line(&format!("\nAll {steps} steps held, in {took:.0} s."));
        } else {
            self.line(&format!("\n{failed} of {steps} steps failed, after {took:.0} s."));
        }
    }
}
