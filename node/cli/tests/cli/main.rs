//! `dovetail` from outside: what it prints, and how it ends.

mod answers;
mod backups;
mod changes;
mod check;
mod endings;
mod fake;
mod files;
