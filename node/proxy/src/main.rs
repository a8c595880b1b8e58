//! `dovetail-proxy`: see the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    dovetail_proxy::run::main()
}
