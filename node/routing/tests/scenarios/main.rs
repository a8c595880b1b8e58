//! Stories about routes: each file is a script, its output written by the core.
//!
//! A block of commands ends with `----`, what they print follows up to an empty
//! line. To add a story: write the commands, run with `UPDATE_EXPECT=1`, and read
//! the difference. `script.rs` says what the commands are.

use std::path::Path;

use expect_test::expect_file;

mod facts;
mod orders;
mod rollbacks;
mod script;
mod show;

use script::Script;

/// Runs the commands of a story, and puts their output where it belongs.
fn told(story: &str) -> String {
    let mut script = Script::default();
    let mut told = String::new();
    let mut output = String::new();
    let mut in_output = false;
    for line in story.lines() {
        match line {
            "----" => {
                told.push_str("----\n");
                told.push_str(&std::mem::take(&mut output));
                in_output = true;
            }
            "" => {
                in_output = false;
                told.push('\n');
            }
            _ if in_output => {}
            command => {
                told.push_str(command);
                told.push('\n');
                if !command.starts_with('#') {
                    output.push_str(&script.run(command));
                }
            }
        }
    }
    assert!(output.is_empty(), "the story ends without ----, and would say:\n{output}");
    told
}

macro_rules! stories {
    ($($name:ident)*) => {
        const STORIES: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            let name = concat!(stringify!($name), ".txt");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(name);
            let story = std::fs::read_to_string(&path).expect("the story");
            expect_file![path].assert_eq(&told(&story));
        })*
    };
}

stories! {
    a_bad_label_keeps_the_last_good_route
    a_canary_is_set
    a_canary_outlives_its_services
    a_canary_runs_in_steps
    a_host_is_renamed
    a_listing_lacks_objects
    a_rollback_ends
    a_rollback_is_ordered
    a_rollback_is_refused
    a_rollback_of_certificates
    a_service_is_on_several_networks
    a_service_is_published
    a_service_is_scaled
    a_start_first_update
    a_stop_first_update
    a_swarm_node_goes_down
    a_thousand_hosts
    a_virtual_address
    an_operator_drains
    an_oversized_label
    another_swarm_is_seen
    certificates
    certificates_of_clients
    commands_are_idempotent
    configuration_reaches_the_snapshot
    default_backend
    host_mode
    how_upstreams_are_spoken_to
    labels_of_the_routing_mesh
    misspelt_labels
    one_kind_of_tls_on_a_route
    options_of_a_route
    paths_on_one_host
    redirects
    redirects_that_lead_back
    service_clusters
    services_that_may_not_merge
    seven_faults
    streams_that_are_passed_through
    the_incumbent_is_exclusive
    two_services_share_a_host
    undialable_addresses
}

#[test]
fn every_file_is_a_story() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    for file in folder.read_dir().expect("the folder of the stories") {
        let name = file.expect("a file").file_name().into_string().expect("a plain name");
        if let Some(name) = name.strip_suffix(".txt") {
            assert!(STORIES.contains(&name), "{name}.txt is told by no test");
        }
    }
}
