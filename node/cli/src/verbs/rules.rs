//! `rules`: which rule set is in force, and switching to another.

use std::process::ExitCode;

use clap::Subcommand;
use dovetail_proto::v1 as pb;
use dovetail_routing::RuleSet;
use serde_json::json;

use super::change::{self, ChangeArgs};
use super::status;
use crate::core::Core;
use crate::failure::Failure;
use crate::out::{Out, Tone};

const ACTIVATE: &str = "\
What would differ is told beforehand by --dry-run, and for the whole history by
dovetail replay --rules. Refused while a member or a connected proxy could not follow.

Examples:
  dovetail rules activate 2 --dry-run
  dovetail rules activate 2";

#[derive(Debug, Subcommand)]
pub(crate) enum Rules {
    /// The rule set in force, and the newest that each member knows
    #[command(after_help = "Example:\n  dovetail -o json rules show | jq .in_force")]
    Show,
    /// Has another rule set say what facts and orders mean, from here on
    #[command(after_help = ACTIVATE)]
    Activate {
        /// The number of the rule set; an earlier one may be returned to
        #[arg(value_name = "N")]
        rules: u32,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

pub(crate) async fn run(core: &Core, out: &Out, verb: Rules) -> Result<ExitCode, Failure> {
    match verb {
        Rules::Show => show(out, &status::ask(core, false).await?),
        Rules::Activate { rules, change } => {
            change::send(core, out, &change, |mut client, request_id, dry_run| {
                let command = Some(pb::ActivateRules { rules });
                let request = pb::ActivateRulesRequest { request_id, dry_run, command };
                async move { client.activate_rules(request).await }
            })
            .await
        }
    }
}

fn show(out: &Out, status: &pb::StatusResponse) -> Result<ExitCode, Failure> {
    if out.is_json() {
        let member = |one: &pb::Member| json!({"id": one.id, "newest": one.rules_newest});
        let members: Vec<_> = status.members.iter().map(member).collect();
        let newest = RuleSet::NEWEST.number();
        return out.json(&json!({
            "in_force": status.rules,
            "members": members,
            "newest_here": newest,
        }));
    }
    out.line(&format!("rule set {} is in force", status.rules))?;
    let mut table = out.table(&["MEMBER", "KNOWS UP TO"]);
    for member in &status.members {
        let (newest, tone) = match member.rules_newest {
            0 => ("does not answer".to_owned(), Tone::Bad),
            newest => (newest.to_string(), Tone::Plain),
        };
        table.add_row([out.cell(member.id.to_string(), Tone::Plain), out.cell(newest, tone)]);
    }
    out.print(&table, "no members")
}
