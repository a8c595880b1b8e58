//! Files, flags, and what wins.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser};

use super::*;

#[derive(Debug, Parser)]
#[command(name = "dovetail-something")]
struct Args {
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long, alias = "docker-url", default_value = "unix:///var/run/docker.sock")]
    docker: String,
    #[arg(long, default_value_t = 1)]
    id: u64,
    #[arg(long, value_delimiter = ',')]
    core: Vec<String>,
    #[arg(long)]
    fast: bool,
    #[arg(long, env = "DOVETAIL_PROCESS_TEST_PATH_LIKE", value_parser = ["a", "b"])]
    kind: Option<String>,
}

fn parse(toml: &str, args: &[&str]) -> Result<Parsed<Args>, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    file.write_all(toml.as_bytes()).expect("written");
    let path = file.path().to_str().expect("UTF-8").to_owned();
    let mut line = vec!["it".to_owned(), "--config".to_owned(), path.clone()];
    line.extend(args.iter().map(|arg| (*arg).to_owned()));
    parse_from(line, &["Extensions", "PollInterval"])
}

fn refusal(toml: &str) -> String {
    let error = parse(toml, &["--data-dir", "/d"]).expect_err("refused");
    let text = crate::chain(&error);
    // The file's own name differs from run to run.
    match text.split_once(':') {
        Some((_, rest)) if !matches!(error, ConfigError::Usage(_)) => rest.to_owned(),
        _ => text,
    }
}

#[test]
fn a_key_stands_for_the_flag_whatever_its_case() {
    let parsed = parse(
        "DataDir = '/x'\nDockerURL = 'tcp://a'\nID = 7\nfast = true\ncore = ['a:1', 'b:2']\n\
         kind = 'a'\n",
        &[],
    )
    .expect("parsed");
    let args = parsed.args;
    assert_eq!(args.data_dir, PathBuf::from("/x"));
    assert_eq!(args.docker, "tcp://a");
    assert_eq!(args.id, 7);
    assert!(args.fast);
    assert_eq!(args.core, ["a:1", "b:2"]);
    assert_eq!(args.kind.as_deref(), Some("a"));
    assert!(parsed.warnings.is_empty());
    assert!(args.config.is_some());
}

#[test]
fn a_flag_wins_over_the_file() {
    let args = parse("data-dir = '/x'\nid = 7\ncore = 'a:1'\n", &["--id", "3", "--core", "c:3"])
        .expect("parsed")
        .args;
    assert_eq!(args.id, 3);
    assert_eq!(args.core, ["c:3"]);
    assert_eq!(args.data_dir, PathBuf::from("/x"));
}

#[test]
fn an_unknown_key_is_a_warning_and_a_cluster_key_is_none() {
    let parsed =
        parse("datadir = '/x'\npollinterval = '3s'\nLlama = 1\n[Extensions.a]\nb = 1\n", &[])
            .expect("parsed");
    assert_eq!(parsed.warnings.len(), 1, "{:?}", parsed.warnings);
    assert!(parsed.warnings[0].ends_with(":3:1: key Llama is not known"));
    let file = parsed.file.expect("file");
    assert_eq!(file.get("PollInterval").and_then(toml::Value::as_str), Some("3s"));
}

#[test]
fn a_refusal_names_file_line_column_and_key() {
    assert_eq!(refusal("\nid = 'x'\n"), "2:1: key id: \"x\": invalid digit found in string");
    assert_eq!(refusal("kind = 'c'\n"), "1:1: key kind: \"c\" is not one of a, b");
    assert_eq!(refusal("id = [1, 2]\n"), "1:1: key id: takes one value, not a list");
    assert_eq!(refusal("id = {a = 1}\n"), "1:1: key id: a table, where one value is expected");
    assert!(refusal("id = 1\nID = 2\n").contains("is set already by"));
    assert!(refusal("id = 1\nid = = 2\n").starts_with("2:"), "{}", refusal("id = 1\nid = = 2\n"));
    assert_eq!(
        refusal("[Extensions.a]\nx = ['-----BEGIN PRIVATE KEY-----']\n"),
        "2:6: key Extensions: holds key material: put it into a Docker secret and write \
         secret:NAME"
    );
}

#[test]
fn without_a_file_the_flags_are_as_clap_has_them() {
    let parsed: Parsed<Args> = parse_from(["it", "--data-dir", "/d"], &[]).expect("parsed");
    assert!(parsed.file.is_none());
    let missing = parse_from::<Args>(["it"], &[]).expect_err("a required flag");
    assert!(matches!(missing, ConfigError::Usage(_)));
    let missing =
        parse_from::<Args>(["it", "--config", "/nowhere/x.toml"], &[]).expect_err("no file");
    assert!(matches!(missing, ConfigError::Read { .. }), "{missing}");
    Args::command().debug_assert();
}
