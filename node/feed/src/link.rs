//! A stream to one member: dialled, greeted, and with its first word heard.

use std::time::Duration;

use dovetail_process::grpc::{self, ChannelOptions};
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::feed_client::FeedClient;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::address::CoreAddresses;
use crate::subscription::CANONICAL_BYTES_MAX;

/// How long a dial may take, and again the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a member may take to accept the stream and to say its first word.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// A stream to a member.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its place in `--core`.
    pub(crate) at: usize,
    pub(crate) answers: mpsc::Sender<pb::FollowRequest>,
    pub(crate) updates: Streaming<pb::Update>,
    /// Heard, and not acted on yet.
    pub(crate) first: Option<pb::Update>,
}

/// What it takes to dial members.
#[derive(Clone, Debug)]
pub(crate) struct Dialler {
    pub(crate) core: CoreAddresses,
    pub(crate) tls: TlsDir,
    pub(crate) hello: pb::FollowRequest,
}

impl Dialler {
    /// Opens a stream to the member at this place of `--core`, or says why not.
    pub(crate) async fn open(&self, at: usize) -> Result<Link, String> {
        let address = self.core.as_slice().get(at).ok_or("there is no such member")?;
        let options = ChannelOptions { connect_timeout: CONNECT_TIMEOUT, ..Default::default() };
        let channel = grpc::channel_with(&self.tls, address, &options)
            .map_err(|error| dovetail_process::chain(&error))?;
        let (answers, requests) = mpsc::channel(16);
        answers.try_send(self.hello.clone()).map_err(|error| error.to_string())?;
        let mut client =
            FeedClient::new(channel).max_decoding_message_size(CANONICAL_BYTES_MAX + 64 * 1_024);
        let opening = async {
            let mut updates = client.follow(ReceiverStream::new(requests)).await?.into_inner();
            let first = updates.message().await?;
            Ok((updates, first))
        };
        match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok((updates, Some(first)))) => Ok(Link { at, answers, updates, first: Some(first) }),
            Ok(Ok((_, None))) => Err("it ended the stream at once".to_owned()),
            Ok(Err(status)) => Err(grpc::describe(&status)),
            Err(_) => Err(format!("it opened no stream within {OPEN_TIMEOUT:?}")),
        }
    }
}

/// A job that ends when nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
