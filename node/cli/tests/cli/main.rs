//! `dovetail` from outside: what it prints, and how it ends.

mod answers;
mod backups;
mod changes;
mod check;
mod endings;
mod exports;
mod fake;
mod files;
mod ledger;
mod past;
