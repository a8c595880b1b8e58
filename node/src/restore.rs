//! Verbs that make a new quorum of one member: `restore` of a backup, `recover` of a folder.
//!
//! Both give it another id, so that a member of the old one can never join it by mistake,
//! and go on far beyond the old one's index, so that proxies follow without going back.

use std::path::PathBuf;

use dovetail_control::ports::Slot;
use dovetail_raft_store::offline::{self, Founder, NewQuorum, OfflineError};
use serde_json::{Value, json};

/// What a new quorum is made of besides its content.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FounderArgs {
    /// The member's place in --members
    #[arg(long, env = "DOVETAIL_ID")]
    id: Slot,
    /// The member's data folder
    #[arg(long, env = "DOVETAIL_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// How the others reach this member
    #[arg(long, env = "DOVETAIL_ADVERTISE", value_name = "HOST:PORT")]
    advertise: String,
}

impl FounderArgs {
    fn founder(&self) -> Founder<'_> {
        Founder { slot: self.id, address: &self.advertise }
    }
}

/// `restore`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// What dovetail backup wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    founder: FounderArgs,
    /// Yes: the old quorum is gone for good, or will never be started again
    #[arg(long, required = true)]
    new_cluster: bool,
}

/// `recover`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    founder: FounderArgs,
    /// Yes: a majority of the members is gone for good, and what only they held is lost
    #[arg(long, required = true)]
    force_new_cluster: bool,
}

pub(crate) async fn restore(args: &RestoreArgs) -> Result<NewQuorum, OfflineError> {
    offline::restore(&args.file, &args.founder.data_dir, args.founder.founder()).await
}

pub(crate) async fn recover(args: &RecoverArgs) -> Result<NewQuorum, OfflineError> {
    offline::recover(&args.founder.data_dir, args.founder.founder()).await
}

/// The new quorum for scripts.
pub(crate) fn in_json(made: &NewQuorum) -> Value {
    json!({
        "cluster_id": made.cluster_id,
        "parent": made.parent,
        "parent_index": made.parent_index,
        "index": made.index,
        "aside": made.aside,
    })
}

/// The new quorum for people, and what is to be done next.
pub(crate) fn in_words(made: &NewQuorum) -> String {
    let NewQuorum { cluster_id, parent, parent_index, index, aside } = made;
    let mut words = format!(
        "quorum {cluster_id} takes the place of {parent}: it holds that one's entries up to \
         {parent_index}, and goes on after {index}\n"
    );
    if let Some(aside) = aside {
        words.push_str(&format!(
            "what others acknowledged after {parent_index} and never reached this disk is lost; the \
             files of before are in {}\n",
            aside.display()
        ));
    }
    words.push_str(
        "next: start this member as always, and the others with empty data folders; then \
         dovetail member add ID=HOST:PORT for each of them, and dovetail member promote ID ID",
    );
    words
}
