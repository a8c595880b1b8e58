//! The verbs: ask, then print.

mod backup;
mod canary;
mod change;
mod check;
mod completion;
mod config;
mod drain;
mod explain;
mod export;
mod history;
mod log;
mod member;
mod pki;
mod plan;
mod problems;
mod replay;
mod rollback;
mod routes;
mod rules;
mod status;
mod verify;

pub(crate) use canary::Canary;
pub(crate) use change::ChangeArgs;
pub(crate) use config::Config;
pub(crate) use drain::{DRAIN, DrainArgs, UndrainArgs};
pub(crate) use explain::Explain;
pub(crate) use history::{Diff, History};
pub(crate) use member::Member;
pub(crate) use rollback::{Release, Rollback};
pub(crate) use routes::Routes;
pub(crate) use rules::Rules;

use std::process::ExitCode;

use crate::args::{Args, Log, Options, Verb};
use crate::core::Core;
use crate::demo;
use crate::failure::Failure;
use crate::out::Out;

/// Does what the command line says.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let Args { options, verb } = args;
    let out = Out::new(options.output);
    let core = || Core::new(&options);
    match verb {
        Verb::Completion { shell } => completion::run(&out, shell),
        Verb::Pki(verb) => pki::run(&out, verb),
        Verb::Demo { once } => Ok(demo::run(once).await),
        Verb::Status { watch: true, local } => status::watch(&core()?, &out, local).await,
        Verb::Status { watch: false, local } => status::status(&core()?, &out, local).await,
        Verb::Members => status::members(&core()?, &out).await,
        Verb::Proxies => status::proxies(&core()?, &out).await,
        Verb::Routes(verb) => routes::run(&core()?, &out, verb).await,
        Verb::Explain(verb) => explain::run(&core()?, &out, verb).await,
        Verb::History(verb) => history::history(&core()?, &out, verb).await,
        Verb::Diff(verb) => history::diff(&core()?, &out, verb).await,
        Verb::Rollback(verb) => rollback::rollback(&core()?, &out, verb).await,
        Verb::Release(verb) => rollback::release(&core()?, &out, verb).await,
        Verb::Problems { stale } => problems::run(&core()?, &out, stale).await,
        Verb::Check { files, strict } => check::run(&out, &files, strict),
        Verb::Plan { files, prune } => plan::run(&core()?, &out, &files, prune).await,
        Verb::Annotate { text, change } => change::annotate(&core()?, &out, text, &change).await,
        Verb::Member(verb) => {
            let timeout = options.timeout.max(member::PATIENCE);
            let core = Core::new(&Options { timeout, ..options.clone() })?;
            member::run(&core, &out, verb).await
        }
        Verb::Config(verb) => config::run(&core()?, &out, verb).await,
        Verb::Rules(verb) => rules::run(&core()?, &out, verb).await,
        Verb::Canary(verb) => canary::run(&core()?, &out, verb).await,
        Verb::Drain(args) => drain::drain(&core()?, &out, args).await,
        Verb::Undrain(args) => drain::undrain(&core()?, &out, args).await,
        Verb::Drains { stale } => drain::list(&core()?, &out, stale).await,
        Verb::Backup { file } => backup::run(&core()?, &out, &file, options.timeout).await,
        Verb::Log(Log::Show { from, limit }) => {
            log::show(&core()?, &out, from, limit, options.timeout).await
        }
        Verb::Log(Log::Follow { from }) => export::follow(&core()?, &out, from).await,
        Verb::Log(Log::Export { file, from, to }) => {
            export::export(&core()?, &out, &file, from, to, options.timeout).await
        }
        Verb::Log(Log::Verify { file: Some(file), ca }) => {
            verify::file(&options, &out, &file, ca.as_deref()).await
        }
        Verb::Log(Log::Verify { file: None, .. }) => {
            // Every member hashes all that it has.
            let patient = Options { timeout: options.timeout.max(verify::RECOMPUTE), ..options };
            verify::core(&Core::new(&patient)?, &out).await
        }
        Verb::Replay { file, until, rules, explain } => {
            let request = explain.as_deref().and_then(<[String]>::as_array);
            replay::run(&out, &file, until.unwrap_or_default(), rules, request).await
        }
    }
}

/// An identity without its scheme.
fn actor(actor: &str) -> &str {
    actor.strip_prefix(dovetail_process::identity::SCHEME).unwrap_or(actor)
}
