//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use dovetail_ledger::Until;
use dovetail_process::identity::Role;

use crate::verbs::{
    Canary, ChangeArgs, Config, DRAIN, Diff, DrainArgs, Explain, History, Member, Release,
    Rollback, Routes, Rules, UndrainArgs,
};

const EXAMPLES: &str = "\
Examples:
  dovetail pki init certs --san router.example    certificates for a core of three
  dovetail pki issue certs operator/anna --role viewer
  export DOVETAIL_CORE=core-1:8080,core-2:8080,core-3:8080 DOVETAIL_TLS_DIR=certs/operator
  dovetail status                                 the quorum, the proxies, the revisions
  dovetail -o json routes --service-cluster blue  routes for a script
  dovetail problems                               what an operator should see
  dovetail check stack.yml                        what a stack file would come to
  dovetail plan stack.yml --stack shop            the same beside all that runs
  dovetail annotate 'release 42 begins'           a remark in the log
  dovetail canary set --host shop.example --service shop_v1=9000 --service shop_v2=1000
  dovetail log export shop.log                    the log as a file, for an auditor
  dovetail replay shop.log                        what it comes to, without a core
  dovetail drain 10.0.1.3:8080 --for 10m          nobody is sent there for a while
  dovetail explain GET https://shop.example/app   where a request goes, and why
  dovetail rollback --to 10m --host shop.example  the routes as they were ten minutes ago
  dovetail demo --once                            the whole system on this machine

Exit codes: 0 done, 1 a check was made and failed, 2 usage, 3 refused,
4 unreachable or no quorum, 5 outcome unknown.";

/// Asks and orders a Dovetail core: the layer-7 router of a Docker Swarm.
#[derive(Debug, Parser)]
#[command(name = "dovetail", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes, before it or after it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of every verb")]
pub(crate) struct Options {
    /// Members of the core; any may be down or a follower
    #[arg(
        long,
        global = true,
        env = "DOVETAIL_CORE",
        value_name = "HOST:PORT,…",
        value_delimiter = ','
    )]
    pub(crate) core: Vec<String>,
    /// Folder with ca.pem, cert.pem and key.pem of an operator
    #[arg(long, global = true, env = "DOVETAIL_TLS_DIR", value_name = "DIR")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// What the answer looks like
    #[arg(
        short,
        long,
        global = true,
        env = "DOVETAIL_OUTPUT",
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(crate) output: Output,
    /// The longest time to wait for an answer
    #[arg(
        long,
        global = true,
        env = "DOVETAIL_TIMEOUT",
        value_name = "TIME",
        default_value = "5s",
        value_parser = timeout
    )]
    pub(crate) timeout: Duration,
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For scripts
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Makes certificates
    #[command(subcommand)]
    Pki(Pki),
    /// The quorum, the proxies, the revisions
    #[command(after_help = "Examples:\n  dovetail status\n  dovetail status --watch\n  \
        dovetail -o json status | jq .leader")]
    Status {
        /// Ask again every second, until it is interrupted
        #[arg(long)]
        watch: bool,
        /// One member's own view, without asking the leader
        #[arg(long)]
        local: bool,
    },
    /// The routes of one service cluster
    Routes(Routes),
    /// Where a request goes, and why
    Explain(Explain),
    /// Who changed which routes, and by what
    History(History),
    /// What differs between the routes at two times
    Diff(Diff),
    /// Gives routes back what they were, until they are released
    Rollback(Rollback),
    /// Ends rollbacks: routes are what Swarm says again
    Release(Release),
    /// What an operator should see: invalid labels, conflicts, what is held
    #[command(after_help = "Example:\n  dovetail -o json problems | jq '.[].reason'")]
    Problems {
        /// Also without a quorum, however old
        #[arg(long)]
        stale: bool,
    },
    /// The members of the core
    Members,
    /// The proxies, and what they have in force
    Proxies,
    /// Reads stack files or configuration files, and prints the routes and every problem
    #[command(after_help = "Nobody is asked: exit 1 when a file has a problem.\n\nExamples:\n  \
        dovetail check shop.yml --stack shop\n  \
        dovetail check shop.yml blog.yml --stack shop --stack blog\n  \
        dovetail check --strict interlock.toml\n  \
        dovetail -o json check shop.yml | jq '.problems[].reason'")]
    Check {
        #[command(flatten)]
        files: FileArgs,
        /// Warnings fail the check, too
        #[arg(long)]
        strict: bool,
    },
    /// What deploying stack files would change, problems and conflicts included
    #[command(after_help = "Nothing is changed: exit 1 when there would be a new problem.\n\n\
        Examples:\n  dovetail plan shop.yml --stack shop\n  \
        dovetail -o json plan shop.yml --stack shop --prune | jq '.routes[].change'")]
    Plan {
        #[command(flatten)]
        files: FileArgs,
        /// Services of the stack that are not in the files are removed, too
        #[arg(long)]
        prune: bool,
    },
    /// Writes a remark into the log
    #[command(after_help = "Examples:\n  dovetail annotate 'release 42 begins'\n  \
        dovetail -o json annotate --request-id deploy-42 'release 42 begins'")]
    Annotate {
        /// The remark
        text: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Takes upstreams out of the rotation
    #[command(after_help = DRAIN)]
    Drain(DrainArgs),
    /// Lifts an operator's drain, and no reason of Swarm's
    #[command(after_help = "Example:\n  dovetail undrain --swarm-node worker-2")]
    Undrain(UndrainArgs),
    /// What operators drained: until when, and what that leaves out
    #[command(after_help = "Example:\n  dovetail -o json drains | jq '.[].upstreams'")]
    Drains {
        /// Also without a quorum, however old
        #[arg(long)]
        stale: bool,
    },
    /// What part of a route's requests each service gets
    #[command(subcommand)]
    Canary(Canary),
    /// Saves everything that the quorum decided into a file, for dovetaild restore
    #[command(after_help = "The file is never overwritten.\n\nExamples:\n  \
        dovetail backup dovetail-2026-11-23.backup\n  \
        dovetail -o json backup today.backup | jq .index")]
    Backup {
        /// Where to
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// The cluster's configuration: in force, applied, in history
    #[command(subcommand)]
    Config(Config),
    /// Who the members of the core are
    #[command(subcommand)]
    Member(Member),
    /// What facts and orders mean: rule sets, and which is in force
    #[command(subcommand)]
    Rules(Rules),
    /// What happened, entry by entry
    #[command(subcommand)]
    Log(Log),
    /// What an exported log comes to, and whether it is what the members had
    #[command(after_help = "Nobody is asked: exit 1 when it differs, with the first index.\n\n\
        Examples:\n  dovetail replay shop.log\n  \
        dovetail replay shop.log --until 2026-11-23T10:00:00Z\n  \
        dovetail replay shop.log --rules 2
  \
        dovetail -o json replay shop.log | jq .divergence")]
    Replay {
        /// An export of `log export`
        file: PathBuf,
        /// After this index, or before the first entry later than this time (UTC)
        #[arg(long, value_name = "REVISION|TIME")]
        until: Option<Until>,
        /// What if: also under this rule set, with the routes that would differ
        #[arg(long, value_name = "V")]
        rules: Option<u32>,
        /// Where a request would have gone then, and why
        #[arg(long, num_args = 2, value_names = ["METHOD", "URL"])]
        explain: Option<Vec<String>>,
    },
    /// Prints a script that completes verbs and options in a shell
    #[command(after_help = "Examples:\n  dovetail completion bash > \
        /etc/bash_completion.d/dovetail\n  dovetail completion zsh > ~/.zfunc/_dovetail\n  \
        dovetail completion fish > ~/.config/fish/completions/dovetail.fish")]
    Completion { shell: clap_complete::Shell },
    /// The whole system on this machine, with a stand-in for Docker
    Demo {
        /// Tell the story, check it, and end: 0 only if every step held
        #[arg(long)]
        once: bool,
    },
}

/// Files that are read here.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// Stack files (Compose, version 3), or TOML for check; - is the standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// The name of the stack, as docker stack deploy takes it; once, or once for each file
    #[arg(long, value_name = "NAME")]
    pub(crate) stack: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pki {
    /// Makes an authority, and folders for members, a proxy, an extension and an operator
    #[command(after_help = "Example:\n  dovetail pki init certs --members 3 --san router.example \
        --san 10.0.0.7")]
    Init {
        /// Where to; what is there is never overwritten
        dir: PathBuf,
        /// How many members
        #[arg(long, value_name = "N", default_value_t = 3)]
        members: u64,
        /// A further name or IP address of every certificate
        #[arg(long, value_name = "NAME|IP")]
        san: Vec<String>,
    },
    /// Issues one more certificate
    #[command(
        after_help = "Examples:\n  dovetail pki issue certs operator/anna --role operator\n  \
        dovetail pki issue certs member/4 --san core-4.example\n  \
        dovetail pki issue certs 'proxy/edge?service_cluster=blue'"
    )]
    Issue {
        /// The folder of `pki init`
        dir: PathBuf,
        /// Whose, such as operator/anna, proxy/edge-1, extension/nginx or member/4
        #[arg(value_name = "ROLE/NAME")]
        whose: String,
        /// What an operator may do: viewer, operator or admin
        #[arg(long, default_value = "viewer")]
        role: Role,
        /// A further name or IP address
        #[arg(long, value_name = "NAME|IP")]
        san: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Prints entries, oldest first; with -o json one object per line
    #[command(after_help = "Examples:\n  dovetail log show --from 1 --limit 20\n  \
        dovetail -o json log show | jq -r .summary")]
    Show {
        /// The first index; 0 is the oldest kept
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        limit: u64,
    },
    /// Prints entries as they are applied, until it is interrupted
    #[command(after_help = "Example:\n  dovetail -o json log follow | jq -r .summary")]
    Follow {
        /// The first index; 0 is the next one that is applied
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
    },
    /// Writes entries into a file that anybody can check and replay
    #[command(after_help = "A file that is there is never overwritten.\n\nExamples:\n  \
        dovetail log export shop.log\n  dovetail log export shop.log --from 1000 --to 2000")]
    Export {
        /// Where to
        file: PathBuf,
        /// The first index; 0 is the oldest kept
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
        /// The last index; 0 is the newest
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        to: u64,
    },
    /// Checks a file, or the ledgers of all members: exit 1 when anything is wrong
    #[command(after_help = "Chain, gaps, order and checkpoints are checked; the first index that \
        is wrong is named.\n\nExamples:\n  dovetail log verify\n  \
        dovetail log verify shop.log\n  dovetail log verify --ca certs/ca/ca.pem shop.log")]
    Verify {
        /// An export; without one, every member checks and compares its own
        file: Option<PathBuf>,
        /// Who may have signed the file: checked as of the signing time, without a core
        #[arg(long, value_name = "FILE", requires = "file")]
        ca: Option<PathBuf>,
    },
}

/// A duration such as 500ms, 5s or 2m; a bare number is seconds.
fn timeout(given: &str) -> Result<Duration, String> {
    let parsed = match given.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(given)
            .map_err(|error| format!("{error}; write it as 500ms, 5s or 2m"))?,
    };
    if parsed.is_zero() || parsed > Duration::from_secs(3_600) {
        return Err("it has to be above 0 and at most 1h".to_owned());
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_stand_before_the_verb_or_after_it() {
        for line in [
            ["dovetail", "--core", "a:1,b:2", "-o", "json", "status"],
            ["dovetail", "status", "--core", "a:1,b:2", "-o", "json"],
        ] {
            let args = Args::try_parse_from(line).expect("parsed");
            assert_eq!(args.options.core, ["a:1", "b:2"]);
            assert_eq!(args.options.output, Output::Json);
        }
    }

    #[test]
    fn a_timeout_has_a_unit_or_is_seconds() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(timeout("3"), Ok(Duration::from_secs(3)));
        for bad in ["", "0", "0s", "2h", "-1", "x"] {
            assert!(timeout(bad).is_err(), "{bad}");
        }
    }
}
