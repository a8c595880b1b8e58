//! curl, a client that nobody here wrote.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use dovetail_jepsen::supervisor::{Finished, run_to_end};
use serde_json::Value;

/// How long one run may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// Between the parts of an answer; no body here contains it.
const SEPARATOR: char = '\u{1e}';

/// A run of curl in the making. All its requests go to one proxy by one connection.
#[derive(Clone, Debug)]
pub(crate) struct Curl {
    arguments: Vec<String>,
}

/// What came back of one request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `1.1` or `2`.
    pub(crate) http: String,
    /// By their names in lower case.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    pub(crate) body: String,
}

impl Curl {
    /// Goes to `tls` for URLs of https, and to `http` for all others.
    pub(crate) fn new(http: SocketAddr, tls: SocketAddr) -> Self {
        let format = format!("{SEPARATOR}%{{json}}{SEPARATOR}%{{header_json}}{SEPARATOR}");
        let (plain, secured) = (format!(":80:{http}"), format!(":443:{tls}"));
        let fixed = ["--disable", "--silent", "--show-error", "--noproxy", "*"];
        let given = ["--connect-to", &plain, "--connect-to", &secured, "--write-out", &format];
        Self { arguments: fixed.into_iter().chain(given).map(str::to_owned).collect() }
    }

    #[must_use]
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    async fn run(&self, url: &str) -> Finished {
        let mut command = Command::new("curl");
        command.args(&self.arguments).arg(url);
        run_to_end(command, DEADLINE).await.expect("curl runs")
    }

    /// The answers to all URLs of a pattern such as `http://a.example/[1-100]`, in order.
    pub(crate) async fn try_all(&self, urls: &str) -> Result<Vec<Answer>, String> {
        let done = self.run(urls).await;
        if done.code != Some(0) {
            return Err(format!("curl {urls} ended with {:?}: {}", done.code, done.stderr.trim()));
        }
        let parts: Vec<&str> = done.stdout.split(SEPARATOR).collect();
        parts.chunks_exact(3).map(Answer::parse).collect()
    }

    pub(crate) async fn all(&self, urls: &str) -> Vec<Answer> {
        self.try_all(urls).await.expect("every request is answered")
    }

    pub(crate) async fn try_get(&self, url: &str) -> Result<Answer, String> {
        self.try_all(url).await?.pop().ok_or_else(|| "curl says nothing".to_owned())
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        self.try_get(url).await.expect("the request is answered")
    }
}

impl Answer {
    fn parse(parts: &[&str]) -> Result<Self, String> {
        let [body, facts, headers] = parts else { return Err(format!("{parts:?}")) };
        let facts: Value = serde_json::from_str(facts).map_err(|e| format!("{e}: {facts}"))?;
        let headers = serde_json::from_str(headers).map_err(|e| format!("{e}: {headers}"))?;
        let status = facts["http_code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let http = facts["http_version"].as_str().map(str::to_owned);
        let (status, http) = status.zip(http).ok_or_else(|| facts.to_string())?;
        Ok(Self { status, http, headers, body: (*body).to_owned() })
    }

    /// The value of a header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|values| values.first()).map_or("", String::as_str)
    }

    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Which task answered.
    pub(crate) fn by(&self) -> &str {
        assert_eq!(self.status, 200, "{self:?}");
        self.header("x-answered-by")
    }
}

/// How often each task answered.
pub(crate) fn counts(answers: &[Answer]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.by()).or_default() += 1;
    }
    counts
}
