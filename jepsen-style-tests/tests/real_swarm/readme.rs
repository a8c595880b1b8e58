//! The lines of `deploy/README.md` that an operator types, as they stand there.

use std::fs;
use std::path::{Path, PathBuf};

/// The heading under which they stand.
const SECTION: &str = "## From a clone to a routed service";
/// What the README promises.
const COMMANDS_MAX: usize = 10;

/// The folder `deploy` of this clone.
pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The blocks of shell lines in the section.
fn blocks(readme: &str) -> Vec<String> {
    let section = readme.split(SECTION).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut blocks = section.split("```sh\n").skip(1);
    let mut found = Vec::new();
    for block in blocks.by_ref() {
        found.push(block.split("```").next().unwrap_or_default().to_owned());
    }
    found
}

/// What is typed after `ENGINES` was set.
pub(crate) fn lines() -> String {
    let readme = fs::read_to_string(deploy().join("README.md")).unwrap();
    let mut blocks = blocks(&readme);
    assert_eq!(blocks.len(), 2, "deploy/README.md: {SECTION:?} has other blocks than expected");
    blocks.remove(1)
}

#[test]
fn a_clone_becomes_a_routed_service_in_ten_commands() {
    let readme = fs::read_to_string(deploy().join("README.md")).unwrap();
    let blocks = blocks(&readme);
    let commands: Vec<&str> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!(commands.len() > 2, "no commands found under {SECTION:?}");
    assert!(commands.len() <= COMMANDS_MAX, "{} commands: {commands:#?}", commands.len());
    assert!(commands[0].starts_with("export ENGINES="), "{}", commands[0]);
}
