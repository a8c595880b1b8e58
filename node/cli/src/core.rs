//! Reaching the core: any address may be dead or a follower.
//!
//! A question goes to the addresses one after the other, a moment apart, and the first
//! answer is taken. A change goes to one member at a time: to one that answers, then
//! where its hint points; always under the same request id, so that a repetition after
//! a lost answer is harmless.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use dovetail_process::grpc::{ChannelOptions, channel_with};
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::admin_client::AdminClient;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::args::Options;
use crate::failure::{Failure, Meaning, reason};

/// Until the next address is tried as well.
const STAGGER: Duration = Duration::from_millis(300);
/// Within which every address has been tried.
const ALL_TRIED_WITHIN: Duration = Duration::from_millis(900);
/// How long a member that knows a leader is sought before any member will do.
const LED_WITHIN: Duration = Duration::from_secs(1);
/// Between two rounds, while an election may be going on.
const PAUSE: Duration = Duration::from_millis(200);
/// Where a member says who leads.
const LEADER_HINT: &str = "dovetail-leader";
/// Addresses that one command line gives at most.
const ADDRESSES_MAX: usize = 32;

/// A client of one member.
pub(crate) type Client = AdminClient<Channel>;

/// The core, before anybody was asked.
#[derive(Debug)]
pub(crate) struct Core {
    tls: TlsDir,
    addresses: Vec<String>,
    timeout: Duration,
}

impl Core {
    /// Checks what the command line says, and dials nobody yet.
    pub(crate) fn new(options: &Options) -> Result<Self, Failure> {
        if options.core.is_empty() {
            return Err(Failure::Usage(
                "whom to ask? Give --core HOST:PORT,… or set DOVETAIL_CORE".to_owned(),
            ));
        }
        if options.core.len() > ADDRESSES_MAX {
            return Err(Failure::Usage(format!("--core: more than {ADDRESSES_MAX} addresses")));
        }
        let Some(dir) = &options.tls_dir else {
            return Err(Failure::Usage(
                "as whom? Give --tls-dir DIR or set DOVETAIL_TLS_DIR, such as to \
                 certs/operator of dovetail pki init certs"
                    .to_owned(),
            ));
        };
        let tls = TlsDir::load(dir).map_err(|error| {
            Failure::Usage(format!("--tls-dir: {}", dovetail_process::chain(&error)))
        })?;
        let core = Self { tls, addresses: options.core.clone(), timeout: options.timeout };
        for address in &core.addresses {
            core.client(address).map_err(|reason| Failure::Usage(format!("--core: {reason}")))?;
        }
        Ok(core)
    }

    /// Asks every member until one answers. `call` may be made several times.
    pub(crate) async fn ask<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let answer = self.ask_until(deadline, &call).await?;
        Ok(answer.1.into_inner())
    }

    /// Orders a change. `call` may be made several times, with the same request id.
    pub(crate) async fn order<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut lost = None;
        let mut hints = VecDeque::new();
        loop {
            let address = match hints.pop_front() {
                Some(hint) => hint,
                None => {
                    self.leader(deadline).await.map_err(|failure| settle(failure, lost.as_ref()))?
                }
            };
            let attempt = match self.client(&address) {
                Ok(client) => timeout_at(deadline, call(client)).await,
                Err(reason) => {
                    return Err(settle(Failure::Unreachable(reason), lost.as_ref()));
                }
            };
            let status = match attempt {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => {
                    let silent = format!("{address}: no answer within {:?}", self.timeout);
                    return Err(Failure::Unknown(lost.unwrap_or(silent)));
                }
            };
            let said = reason(&address, &status);
            match Meaning::of(&status) {
                Meaning::Refused => return Err(Failure::Refused(describe_refusal(&status))),
                Meaning::Lost => lost = Some(said.clone()),
                Meaning::NotSent | Meaning::NoQuorum => {}
            }
            match hint(&status) {
                Some(hint) if hint != address => hints.push_back(hint),
                _ => {
                    if Instant::now() + PAUSE >= deadline {
                        return Err(settle(Failure::Unreachable(said), lost.as_ref()));
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// The status of a member that knows a leader, else of the first that answers: a new
    /// disk that waits to be taken in knows nobody, and must not stand for the others.
    pub(crate) async fn status(&self) -> Result<pb::StatusResponse, Failure> {
        let deadline = Instant::now() + self.timeout;
        Ok(self.status_until(deadline, false).await?.1)
    }

    async fn status_until(
        &self,
        deadline: Instant,
        local: bool,
    ) -> Result<(String, pb::StatusResponse), Failure> {
        let request = pb::StatusRequest { local };
        let led = |mut client: Client| async move {
            let answer = client.status(request).await?;
            if answer.get_ref().leader == 0 {
                return Err(Status::unavailable("it knows of no leader"));
            }
            Ok(answer)
        };
        // Once only: that there is no leader is an answer, too.
        let soon = deadline.min(Instant::now() + LED_WITHIN);
        let mut reasons = Vec::new();
        let first = timeout_at(soon, self.round(&led, &mut reasons)).await;
        if let Ok(Ok((address, answer))) = first {
            return Ok((address, answer.into_inner()));
        }
        let any = |mut client: Client| async move { client.status(request).await };
        let (address, answer) = self.ask_until(deadline, &any).await?;
        Ok((address, answer.into_inner()))
    }

    /// The address of the leader, as far as a member that answers knows it, else that
    /// member's own.
    async fn leader(&self, deadline: Instant) -> Result<String, Failure> {
        let (address, status) = self.status_until(deadline, true).await?;
        let leader = status.members.into_iter().find(|member| member.id == status.leader);
        // An address that this machine cannot use is found out by the member's hint.
        let known = leader.map(|member| member.address).filter(|_| status.leader != 0);
        Ok(known.filter(|known| self.addresses.contains(known)).unwrap_or(address))
    }

    async fn ask_until<T, F>(
        &self,
        deadline: Instant,
        call: &impl Fn(Client) -> F,
    ) -> Result<(String, Response<T>), Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        loop {
            let mut reasons = Vec::new();
            let Ok(round) = timeout_at(deadline, self.round(call, &mut reasons)).await else {
                return Err(Failure::Unreachable(self.out_of_time(reasons)));
            };
            match round {
                Ok(answer) => return Ok(answer),
                Err(Round::Refused(reason)) => return Err(Failure::Refused(reason)),
                // Somebody is there, so that a leader may be soon.
                Err(Round::NoQuorum) if Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
                Err(Round::NoQuorum | Round::Nobody) => {
                    return Err(Failure::Unreachable(words(reasons)));
                }
            }
        }
    }

    /// Asks each address once, and where they point, until one answers.
    async fn round<T, F>(
        &self,
        call: &impl Fn(Client) -> F,
        reasons: &mut Vec<(String, String)>,
    ) -> Result<(String, Response<T>), Round>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut waiting: VecDeque<String> = self.addresses.iter().cloned().collect();
        let mut asking = FuturesUnordered::new();
        let mut reached = false;
        let stagger =
            STAGGER.min(ALL_TRIED_WITHIN / u32::try_from(self.addresses.len()).unwrap_or(u32::MAX));
        let mut next_at = Instant::now();
        loop {
            let done = tokio::select! {
                biased;
                Some(done) = asking.next() => done,
                () = sleep_until(next_at), if !waiting.is_empty() => {
                    if let Some(address) = waiting.pop_front() {
                        match self.client(&address) {
                            Ok(client) => asking.push(async {
                                let answer = call(client).await;
                                (address, answer)
                            }),
                            Err(reason) => reasons.push((address, reason)),
                        }
                    }
                    next_at = Instant::now() + stagger;
                    continue;
                }
                else => {
                    return Err(if reached { Round::NoQuorum } else { Round::Nobody });
                }
            };
            let (address, status) = match done {
                (address, Ok(answer)) => return Ok((address, answer)),
                (address, Err(status)) => (address, status),
            };
            match Meaning::of(&status) {
                Meaning::Refused => return Err(Round::Refused(describe_refusal(&status))),
                Meaning::NoQuorum => reached = true,
                Meaning::NotSent | Meaning::Lost => {}
            }
            let said = reason(&address, &status);
            reasons.push((address, said));
            if let Some(hint) = hint(&status)
                && !reasons.iter().any(|(asked, _)| *asked == hint)
                && !waiting.contains(&hint)
                && reasons.len() < 2 * ADDRESSES_MAX
            {
                waiting.push_front(hint);
            }
            // A failure needs no waiting for the next.
            next_at = Instant::now();
        }
    }

    fn client(&self, address: &str) -> Result<Client, String> {
        let channel = channel_with(&self.tls, address, &ChannelOptions::default())
            .map_err(|error| error.to_string())?;
        Ok(AdminClient::new(channel).max_decoding_message_size(64 << 20))
    }

    /// What was heard until the time was over, and from whom nothing.
    fn out_of_time(&self, reasons: Vec<(String, String)>) -> String {
        let heard = |address: &&String| reasons.iter().any(|(asked, _)| asked == *address);
        let silent: Vec<_> =
            self.addresses.iter().filter(|address| !heard(address)).cloned().collect();
        let whom = if silent.is_empty() { "the leader".to_owned() } else { silent.join(", ") };
        let silence = format!("no answer from {whom} within {:?}", self.timeout);
        words(reasons.into_iter().chain([(whom, silence)]).collect())
    }
}

/// How a round ended without an answer.
enum Round {
    Refused(String),
    /// Members were reached, and have no leader.
    NoQuorum,
    Nobody,
}

/// The reasons of all addresses on one line.
fn words(reasons: Vec<(String, String)>) -> String {
    reasons.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>().join("; ")
}

/// A change that may have been sent before stays unknown, whatever came after.
fn settle(failure: Failure, lost: Option<&String>) -> Failure {
    match (failure, lost) {
        (Failure::Unreachable(_), Some(lost)) => Failure::Unknown(lost.clone()),
        (failure, _) => failure,
    }
}

/// A member's no, in its own words.
fn describe_refusal(status: &Status) -> String {
    if status.message().is_empty() {
        status.code().to_string()
    } else {
        status.message().to_owned()
    }
}

fn hint(status: &Status) -> Option<String> {
    let hint = status.metadata().get(LEADER_HINT)?.to_str().ok()?;
    (!hint.is_empty()).then(|| hint.to_owned())
}
