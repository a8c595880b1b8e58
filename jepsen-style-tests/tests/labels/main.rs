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

mod beside_traefik;
mod canary;
mod certificates;
mod checks;
mod clusters;
mod curl;
mod faults;
mod lab;
mod paths;
mod planning;
mod publishing;
mod redirects;
mod stickiness;
mod tls;
mod websockets;

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
        paths:
            a10_a_rewritten_root_is_taken_off_the_path
            a11_the_root_itself_gets_its_slash
            a12_paths_beside_the_root_are_unknown
            a13_a_root_that_is_not_rewritten_stays_in_the_path
            a14_two_services_have_a_path_each_on_one_host;
        canary:
            a15_a16_a17_the_share_follows_the_scale_and_nothing_fails
            a18_two_virtual_addresses_share_evenly
            a19_a_virtual_address_needs_no_new_route_for_its_tasks
            a20_a_virtual_address_moves_with_its_network;
        faults:
            a_misspelt_label_changes_nothing
            a_misspelt_hosts_label_keeps_the_route
            an_invalid_port_keeps_the_route
            a_removed_port_label_keeps_the_route
            of_two_services_with_one_host_the_first_ones_options_hold
            a_service_without_replicas_answers_503_and_comes_back
            an_unusable_host_keeps_the_route
            a_broken_certificate_leaves_the_old_one;
        beside_traefik:
            the_same_faults_put_to_both;
        redirects:
            a21_an_old_host_leads_to_the_new_one
            a22_a_redirect_keeps_path_and_query
            a23_plain_http_leads_to_https
            a24_plain_http_of_a_passthrough_host_leads_to_https;
        stickiness:
            a25_a_cookie_of_the_application_keeps_its_user
            a26_a_client_address_keeps_its_upstream;
        tls:
            a27_tls_ends_at_the_proxy_and_plain_http_stays
            a28_a_handshake_without_a_known_name_is_refused
            a29_a_new_secret_brings_a_new_certificate_without_a_gap
            a30_a_passthrough_service_shows_its_own_certificate
            a31_only_clients_with_a_certificate_get_in;
        websockets:
            a32_two_users_of_a_chat_hear_each_other
            a32_messages_cross_unchanged
            a33_an_upgraded_request_carries_the_same_headers_as_any
            events_arrive_one_by_one;
        checks:
            a39_a_value_that_would_break_a_file_touches_no_other_route
            a44_a_replica_that_answers_5xx_is_not_taken_out
            a44_a_replica_that_answers_5xx_is_taken_out_where_asked;
        clusters:
            a34_a35_service_clusters_know_nothing_of_each_other
            a36_a_host_mode_service_is_reached_at_its_machine
            a41_a_new_application_needs_no_new_proxy
            a46_traffic_goes_on_without_the_core_and_new_services_follow
            a48_info_headers_can_be_hidden
            a49_labels_of_the_old_routing_mesh_publish;
        planning:
            a_plan_comes_true
            a_plan_names_the_owner_and_the_line
            what_a_proxy_cannot_use_is_a_problem_until_it_can;
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
