//! `dovetail` from outside: what it prints, and how it ends.

mod answers;
mod changes;
mod endings;
mod fake;
mod files;
