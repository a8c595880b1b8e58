//! `member`: who the members of the core are.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use dovetail_proto::v1 as pb;

use super::change::{self, ChangeArgs};
use super::status;
use crate::core::Core;
use crate::failure::Failure;
use crate::out::Out;

/// A new disk has to get what the others have; that may take longer than a command.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const ADD: &str = "\
Start the new member first, with a certificate of its own and an empty data folder:

  dovetail pki issue certs member/4 --san core-4
  dovetaild --id 4 --members 1=core-1:8080,2=core-2:8080,3=core-3:8080,4=core-4:8080,5=… …

Examples:
  dovetail member add 4=core-4:8080
  dovetail member add 5=core-5:8080
  dovetail member promote 4 5

One, three or five voters are supported: with two or four, one failure more is not survived.";

#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// The members: role, progress, address
    List,
    /// Takes in a new member as a learner, which follows and has no vote
    #[command(after_help = ADD)]
    Add {
        /// Its --id and where the others reach it
        #[arg(value_name = "ID=HOST:PORT", value_parser = id_and_address)]
        member: (u64, String),
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Gives learners a vote, once they have what the leader has
    #[command(after_help = "Example:\n  dovetail member promote 4 5")]
    Promote {
        #[arg(required = true, value_name = "ID")]
        members: Vec<u64>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Takes members out; each stops by itself. Refused when the quorum would be lost
    #[command(after_help = "Example:\n  dovetail member remove 4 5")]
    Remove {
        #[arg(required = true, value_name = "ID")]
        members: Vec<u64>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Gives a member's place, and its vote, to its new disk
    #[command(after_help = "A wiped disk is a new member, which never votes as the old one. \
        Start the member with its\nempty data folder first.\n\nExamples:\n  \
        dovetail member replace 2\n  dovetail member replace 2 --address core-2b:8080")]
    Replace {
        #[arg(value_name = "ID")]
        member: u64,
        /// Where the others reach it, when that has changed
        #[arg(long, value_name = "HOST:PORT", default_value = "", hide_default_value = true)]
        address: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Has another voter lead, without an election's pause
    #[command(after_help = "Example:\n  dovetail member transfer-leader 2")]
    TransferLeader {
        #[arg(value_name = "ID")]
        member: u64,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

pub(crate) async fn run(core: &Core, out: &Out, verb: Member) -> Result<ExitCode, Failure> {
    use pb::MemberChange as What;
    let (what, members, address, change) = match verb {
        Member::List => return status::members(core, out).await,
        Member::Add { member: (id, address), change } => (What::Add, vec![id], address, change),
        Member::Promote { members, change } => (What::Promote, members, String::new(), change),
        Member::Remove { members, change } => (What::Remove, members, String::new(), change),
        Member::Replace { member, address, change } => {
            (What::Replace, vec![member], address, change)
        }
        Member::TransferLeader { member, change } => {
            (What::TransferLeader, vec![member], String::new(), change)
        }
    };
    let command = pb::ChangeMembers { change: what.into(), members, address };
    change::send(core, out, &change, |mut client, request_id, dry_run| {
        let command = Some(command.clone());
        let request = pb::ChangeMembersRequest { request_id, dry_run, command };
        async move { client.change_members(request).await }
    })
    .await
}

/// `4=core-4:8080`. Whether the address is one, the core says.
fn id_and_address(given: &str) -> Result<(u64, String), String> {
    let advice = "write it as ID=HOST:PORT, such as 4=core-4:8080";
    let (id, address) = given.split_once('=').ok_or(advice)?;
    let id = id.parse().map_err(|_| format!("{id:?} is no id: {advice}"))?;
    Ok((id, address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_member_has_an_id_and_an_address() {
        assert_eq!(id_and_address("4=core-4:8080"), Ok((4, "core-4:8080".to_owned())));
        for bad in ["4", "core-4:8080", "x=core-4:8080", "-1=core-4:8080"] {
            assert!(id_and_address(bad).expect_err(bad).contains("ID=HOST:PORT"), "{bad}");
        }
    }
}
