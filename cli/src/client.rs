//! Calls to a daemon: connect, wait no longer than the limit, turn what goes wrong into a [`Problem`].

use std::io;
use std::time::Duration;

use farm_proto::v1::farm_client::FarmClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use crate::args::Global;
use crate::error::{Error, Problem, START, innermost};
use crate::exit::Exit;

/// How long an ordinary answer may take: a leader election of the slowest profile (2 s), several times over.
pub const ORDINARY: Duration = Duration::from_secs(10);
/// How long an answer may take that measures the machine or moves buckets first.
pub const LONG: Duration = Duration::from_secs(60);
/// Longest wait for a connection: a host that is up answers at once.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection to one daemon.
#[derive(Debug)]
pub struct Daemon {
    client: FarmClient<Channel>,
    limit: Option<Duration>,
}

impl Daemon {
    /// Connects to the daemon that the options name.
    ///
    /// # Errors
    /// `unreachable`: nothing answers there.
    pub async fn connect(global: &Global) -> Result<Self, Error> {
        let (uri, shown) = match &global.server {
            Some(server) => (format!("http://{server}"), server.to_string()),
            None => (format!("unix://{}", global.socket.display()), global.socket.display().to_string()),
        };
        let endpoint = Endpoint::from_shared(uri).map_err(|e| unreachable(global, &shown, &e))?;
        let wait = global.timeout.map_or(CONNECT, |limit| limit.min(CONNECT));
        match tokio::time::timeout(wait, endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(Self { client: FarmClient::new(channel), limit: global.timeout }),
            Ok(Err(error)) => Err(unreachable(global, &shown, &error)),
            Err(_) => Err(unreachable(global, &shown, &io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    /// Makes one call, waiting no longer than `--timeout`, or `usual` without it.
    ///
    /// # Errors
    /// What the daemon said, or `timeout`.
    pub async fn call<T, F>(&self, usual: Duration, call: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(FarmClient<Channel>) -> Result<Response<T>, Status>,
    {
        let limit = self.limit.unwrap_or(usual);
        match tokio::time::timeout(limit, call(self.client.clone())).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Problem::from_status(&status).into()),
            Err(_) => Err(Problem::timeout(limit).into()),
        }
    }

    /// The next message of a stream that is bounded: waits no longer than for a call.
    ///
    /// # Errors
    /// What the daemon said, or `timeout`.
    pub async fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, Error> {
        let limit = self.limit.unwrap_or(ORDINARY);
        let message = tokio::time::timeout(limit, stream.message()).await;
        message.map_err(|_| Problem::timeout(limit))?.map_err(|s| Problem::from_status(&s).into())
    }

    /// The first message of a stream without end, which must come as soon as an answer.
    ///
    /// # Errors
    /// As [`follow`], or `timeout`.
    pub async fn first<T>(&self, stream: &mut Streaming<T>) -> Result<T, Error> {
        let limit = self.limit.unwrap_or(ORDINARY);
        tokio::time::timeout(limit, follow(stream)).await.map_err(|_| Problem::timeout(limit))?
    }
}

/// The next message of a stream without end: its end means that the daemon went away.
///
/// # Errors
/// `stream_ended`, or what the daemon said.
pub async fn follow<T>(stream: &mut Streaming<T>) -> Result<T, Error> {
    let ended = |fact: String| Error::from(Problem::new(Exit::Unreachable, "stream_ended", fact, START));
    match stream.message().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(ended("the daemon ended the stream: it is shutting down".into())),
        Err(status) => {
            let problem = Problem::from_status(&status);
            if problem.code == "connection_lost" {
                return Err(ended(format!("the daemon went away during the stream: {}", innermost(&status))));
            }
            Err(problem.into())
        }
    }
}

fn unreachable(global: &Global, shown: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let fact = format!("no daemon answers at {shown}: {}", innermost(error));
    let denied = fact.contains("Permission denied");
    let cure = match &global.server {
        None if denied => format!("sudo farmctl --socket {shown} cluster status"),
        Some(_) | None => START.into(),
    };
    Problem::new(Exit::Unreachable, "unreachable", fact, cure).into()
}
