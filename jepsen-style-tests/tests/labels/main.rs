//! Every case of Interlock's documentation, with real processes and real traffic: the
//! names of the tests carry the number of the case.
//!
//! All cases share one system (see `lab.rs`), which begins with the first case and ends
//! with the last, so each has hosts of its own.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test prints what it measured, and the harness why it cannot begin"
)]

mod canary;
mod curl;
mod lab;
mod publishing;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;

use lab::Lab;

type Case = for<'l> fn(&'l Lab) -> Pin<Box<dyn Future<Output = ()> + 'l>>;

/// The cases, each with its module before its name.
macro_rules! cases {
    ($($module:ident: $($name:ident)+;)+) => {
        [$($((
            concat!(stringify!($module), "::", stringify!($name)),
            (|lab| Box::pin($module::$name(lab))) as Case,
        ),)+)+]
    };
}

/// What all cases share: the runtime, and the system once it is there.
struct Shared {
    // Dropped in this order: what the lab runs, and then where it runs.
    lab: OnceCell<Result<Lab, String>>,
    runtime: Runtime,
}

fn main() -> ExitCode {
    let cases = cases! {
        publishing:
            a02_an_unrouted_request_is_answered_503_by_every_proxy
            a03_a_published_service_answers_with_info_headers
            a04_four_tasks_take_turns
            a05_a_stack_service_names_its_network_in_full
            a06_a_stack_service_names_its_network_without_the_stack
            a07_a_network_that_does_not_exist_is_a_problem_and_no_outage
            a08_the_default_backend_answers_for_every_other_host
            a09_colours_answer_in_turn_beside_the_default_backend;
        canary:
            a15_a16_a17_the_share_follows_the_scale_and_nothing_fails
            a18_two_virtual_addresses_share_evenly
            a19_a_virtual_address_needs_no_new_route_for_its_tasks;
    };
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let shared = Arc::new(Shared { lab: OnceCell::new(), runtime });
    let trial = |(name, case): (&str, Case)| {
        let shared = shared.clone();
        Trial::test(name, move || {
            let start = async || Lab::start().await.map_err(|error| format!("{error:#}"));
            let lab = shared.runtime.block_on(shared.lab.get_or_init(start));
            shared.runtime.block_on(case(lab.as_ref()?));
            Ok(())
        })
    };
    let conclusion = libtest_mimic::run(&Arguments::from_args(), cases.map(trial).into());
    conclusion.exit_code()
}
