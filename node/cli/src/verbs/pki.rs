//! `pki init` and `pki issue`: files on this machine, without a core.

use std::path::PathBuf;
use std::process::ExitCode;

use dovetail_process::pki::{self, PkiError};
use serde::Serialize;

use crate::args::Pki;
use crate::failure::Failure;
use crate::out::Out;

#[derive(Serialize)]
struct Made {
    folders: Vec<PathBuf>,
}

pub(crate) fn run(out: &Out, verb: Pki) -> Result<ExitCode, Failure> {
    let folders = match verb {
        Pki::Init { dir, members, san } => pki::init(&dir, members, &san),
        Pki::Issue { dir, whose, role, san } => {
            pki::issue(&dir, &whose, role, &san).map(|folder| vec![folder])
        }
    };
    let folders = folders.map_err(|error| {
        let text = dovetail_process::chain(&error);
        match error {
            PkiError::Members { .. } | PkiError::San { .. } | PkiError::Identity { .. } => {
                Failure::Usage(text)
            }
            PkiError::Exists { .. }
            | PkiError::Read { .. }
            | PkiError::Write { .. }
            | PkiError::Authority { .. }
            | PkiError::Make { .. } => Failure::Refused(text),
        }
    })?;
    if out.is_json() {
        return out.json(&Made { folders });
    }
    let lines: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    out.line(&lines.join("\n"))
}
