//! What all clients of a run share: the way to members, and what an answer proves.

use std::future::Future;
use std::time::Duration;

use dovetail_jepsen::history::{Answer, Began, Recorder};
use dovetail_jepsen::operator::Operator;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::admin_client::AdminClient;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_millis(2_500);
/// How often an order is sent under one request id, each time to another member.
const ATTEMPTS_MAX: usize = 6;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How a compare-and-set is refused that found something else.
const MISMATCH: &str = "is another than at index";

/// The run, as its clients see it.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) recorder: Recorder,
    pub(crate) operator: Operator,
    /// Where members take gRPC.
    pub(crate) members: Vec<String>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl World {
    pub(crate) fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// A client with a name and a mood of its own.
    pub(crate) fn client(&self, name: &str, seed: u64) -> anyhow::Result<Client> {
        let admins = self.members.iter().map(|member| self.operator.admin(member));
        Ok(Client {
            world: self.clone(),
            name: name.to_owned(),
            admins: admins.collect::<anyhow::Result<_>>()?,
            random: fastrand::Rng::with_seed(seed),
            orders: 0,
        })
    }
}

/// One operation at a time.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) world: World,
    pub(crate) name: String,
    admins: Vec<AdminClient<Channel>>,
    pub(crate) random: fastrand::Rng,
    orders: u64,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    Done { index: u64 },
    Mismatch,
    Failed,
    Unknown,
}

impl Client {
    /// Any member; the next call takes another, most likely.
    pub(crate) fn admin(&mut self) -> AdminClient<Channel> {
        let number = self.random.usize(..self.admins.len().max(1));
        match self.admins.get(number) {
            Some(admin) => admin.clone(),
            None => panic!("a cluster has members"),
        }
    }

    /// Until the next operation, or the end of the run.
    pub(crate) async fn rest(&mut self, millis: std::ops::Range<u64>) {
        let pause = Duration::from_millis(self.random.u64(millis));
        let mut stop = self.world.stop.clone();
        _ = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await;
    }

    /// An id that no other order has.
    pub(crate) fn request_id(&mut self) -> String {
        self.orders += 1;
        format!("{}-{}", self.name, self.orders)
    }

    /// Asks once; `None` when there is no answer in time.
    pub(crate) async fn once<T>(
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(ATTEMPT, answer).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// Sends an order until it is answered, and writes down what is known then.
    pub(crate) async fn order<Fut>(
        &mut self,
        began: Began,
        mut send: impl FnMut(AdminClient<Channel>) -> Fut,
    ) -> Ordered
    where
        Fut: Future<Output = Result<Response<pb::ChangeResponse>, Status>>,
    {
        let recorder = self.world.recorder.clone();
        let mut doubtful = false;
        let mut last = String::new();
        for _ in 0..ATTEMPTS_MAX {
            match Self::once(send(self.admin())).await {
                Ok(answer) => {
                    let (index, again) = (answer.index, answer.first_answer);
                    recorder.ok(began, Answer::Done { index, again });
                    return Ordered::Done { index };
                }
                Err(status) => {
                    last = format!("{:?}: {}", status.code(), status.message());
                    match status.code() {
                        // Judged when it was applied, and remembered under its request id.
                        Code::FailedPrecondition if last.contains(MISMATCH) => {
                            recorder.ok(began, Answer::Mismatch);
                            return Ordered::Mismatch;
                        }
                        // Refused before it could have any effect; an earlier attempt may have.
                        Code::FailedPrecondition | Code::InvalidArgument if !doubtful => {
                            recorder.fail(began, last);
                            return Ordered::Failed;
                        }
                        Code::FailedPrecondition | Code::InvalidArgument => break,
                        _ => doubtful = true,
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        recorder.unknown(began, last);
        Ordered::Unknown
    }
}
