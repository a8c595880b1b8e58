//! Rule sets: switched only when nobody would be left behind.
//!
//! A member that does not know a rule set could not go on after the entry that activates it,
//! and a proxy that cannot read its snapshots would keep the old ones for ever. So every
//! member has to answer first, learners too, and every connected subscriber has to be able.

use dovetail_proto::v1 as pb;
use dovetail_routing::{Command, RuleSet};
use tonic::Status;

use super::Admin;
use super::command::Order;
use crate::local::merge;
use crate::observe::Observe;
use crate::ports::{Asked, Peers, Quorum};

impl Order for pb::ActivateRulesRequest {
    const CAUSE: &'static str = "rules activate";

    fn command(&self) -> Result<Command, Status> {
        let missing = || Status::invalid_argument("command: is missing");
        let command = self.command.ok_or_else(missing)?;
        let rules = RuleSet::try_from(command.rules)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Command::ActivateRules { rules })
    }

    async fn check<Q: Quorum, P: Peers, D: Observe>(
        &self,
        admin: &Admin<Q, P, D>,
    ) -> Result<(), Status> {
        let Command::ActivateRules { rules } = self.command()? else {
            return Err(Status::internal("the command is of another kind"));
        };
        let view = admin.view();
        let answers = admin.core.locals(&view, Asked::default()).await;
        for (member, answer) in view.members.iter().zip(&answers) {
            let slot = member.slot;
            let Some(answer) = answer else {
                return Err(Status::failed_precondition(format!(
                    "member {slot} does not answer, so nobody knows whether it can follow rule \
                     set {rules}: start it, or remove it with dovetail member remove {slot}"
                )));
            };
            // What a build says that is older than the question.
            let newest = answer.rules_newest.max(RuleSet::FIRST.number());
            if newest < rules.number() {
                return Err(Status::failed_precondition(format!(
                    "member {slot} knows rule sets up to {newest}, not {rules}: update it first"
                )));
            }
        }
        let heard = view.members.iter().zip(answers);
        let subscribers =
            heard.map(|(one, answer)| (one.slot, answer.unwrap_or_default().subscribers));
        let format = rules.snapshot_format();
        for (slot, subscriber) in merge(subscribers) {
            if subscriber.connected && subscriber.format_newest < format {
                return Err(Status::failed_precondition(format!(
                    "proxy {:?} at {} (on member {slot}) reads formats up to {}, and rule set \
                     {rules} needs {format}: update it first",
                    subscriber.name, subscriber.address, subscriber.format_newest
                )));
            }
        }
        Ok(())
    }
}
