//! Stack files and configuration files, read for `check` and `plan`.
//!
//! ```text
//!  files ─► Kind ─┬─► yaml ─► compose (variables) ─┐
//!                 └─► dovetail-config ─────────────┴─► Files: plan, places, findings
//! ```

mod compose;
mod files;
mod variables;
mod yaml;

pub(crate) use files::{Files, Finding, Severity};
