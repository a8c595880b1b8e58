//! `config`: the cluster's configuration, in force and in history.

use std::io::Read as _;
use std::process::ExitCode;

use clap::Subcommand;
use dovetail_config::{FILE_BYTES_MAX, FLAGS};
use dovetail_process::exit;
use dovetail_proto::v1 as pb;

use super::change::{self, ChangeArgs};
use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable, short, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Prints the cluster keys in force, in TOML
    #[command(after_help = "Examples:\n  dovetail config show > cluster.toml\n  \
        dovetail config show --at 4711")]
    Show {
        /// The one that the entry at this index put in force
        #[arg(long, value_name = "INDEX")]
        at: Option<u64>,
        /// Also without a quorum, however old
        #[arg(long)]
        stale: bool,
    },
    /// Puts all cluster keys of a file in force at once, for all members and proxies
    #[command(after_help = "A member's own --config does not replace it again, unless that file \
        changes.\n\nExamples:\n  dovetail config apply cluster.toml --dry-run\n  \
        dovetail config show | sed s/30s/60s/ | dovetail config apply -")]
    Apply {
        /// A TOML file; - is the standard input
        file: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// What was put in force, when, and by whom
    #[command(after_help = "Example:\n  dovetail -o json config history | jq '.[-1].actor'")]
    History {
        /// Also without a quorum, however old
        #[arg(long)]
        stale: bool,
    },
}

pub(crate) async fn run(core: &Core, out: &Out, verb: Config) -> Result<ExitCode, Failure> {
    match verb {
        Config::Show { at, stale } => show(core, out, at, stale).await,
        Config::Apply { file, change } => apply(core, out, &file, &change).await,
        Config::History { stale } => history(core, out, stale).await,
    }
}

async fn show(core: &Core, out: &Out, at: Option<u64>, stale: bool) -> Result<ExitCode, Failure> {
    let answer = ask(core, stale).await?;
    let oldest = answer.configs.first().map_or(0, |config| config.index);
    let mut configs = answer.configs.into_iter().rev();
    let found = match at {
        None => configs.next(),
        Some(at) => configs.find(|config| config.index == at),
    };
    let Some(config) = found else {
        return Err(Failure::Refused(match at {
            Some(at) => format!(
                "no configuration was put in force at index {at}, or it is older than {oldest}, \
                 the oldest kept: dovetail config history lists them"
            ),
            None => "no configuration is in force: dovetail config apply FILE puts one".to_owned(),
        }));
    };
    if out.is_json() {
        return out.json(&json::Configuration::from(config));
    }
    out.line(&printable(&format!(
        "# in force since index {}, {}, by {}",
        config.index,
        time(config.time_ms),
        super::actor(&config.actor)
    )))?;
    out.line(config.file.trim_end())
}

async fn apply(
    core: &Core,
    out: &Out,
    file: &str,
    change: &ChangeArgs,
) -> Result<ExitCode, Failure> {
    let text = read(file)?;
    // What is wrong with it, the core says; keys without effect are told here.
    if let Ok(keys) = dovetail_config::parse(&text, FLAGS) {
        keys.warnings.iter().for_each(|warning| exit::say(&format!("{file}: {warning}")));
    }
    change::send(core, out, change, |mut client, request_id, dry_run| {
        let request = pb::ApplyConfigRequest { request_id, dry_run, file: text.clone() };
        async move { client.apply_config(request).await }
    })
    .await
}

fn read(file: &str) -> Result<String, Failure> {
    let cannot = |error: std::io::Error| Failure::Usage(format!("read {file}: {error}"));
    let mut text = String::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    if file == "-" {
        std::io::stdin().take(limit).read_to_string(&mut text).map_err(cannot)?;
    } else {
        let opened = std::fs::File::open(file).map_err(cannot)?;
        opened.take(limit).read_to_string(&mut text).map_err(cannot)?;
    }
    Ok(text)
}

async fn history(core: &Core, out: &Out, stale: bool) -> Result<ExitCode, Failure> {
    let answer = ask(core, stale).await?;
    if stale {
        out.age(answer.freshness.as_ref())?;
    }
    if out.is_json() {
        let configs: Vec<_> = answer.configs.into_iter().map(json::Configuration::from).collect();
        return out.json(&configs);
    }
    let mut table = out.table(&["INDEX", "TIME", "BY", "SOURCE"]);
    for config in &answer.configs {
        table.add_row([
            out.cell(config.index.to_string(), Tone::Plain),
            out.cell(time(config.time_ms), Tone::Plain),
            out.cell(super::actor(&config.actor), Tone::Plain),
            out.cell(short(&config.source), Tone::Plain),
        ]);
    }
    out.print(&table, "no configuration")
}

async fn ask(core: &Core, stale: bool) -> Result<pb::ConfigsResponse, Failure> {
    let request = pb::ConfigsRequest { stale };
    core.ask(|mut client| async move { client.configs(request).await }).await
}
