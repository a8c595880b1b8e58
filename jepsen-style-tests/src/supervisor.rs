//! Real processes: found, started, signalled, and ended in any case.

mod executables;
mod place;
mod process;

pub use executables::{Executables, MissingExecutable};
pub use place::{Place, PlaceError};
pub use process::{Finished, Process, ProcessConfig, run_to_end};
