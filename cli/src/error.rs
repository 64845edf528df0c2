//! Why a command did not do what it should: a stable code, the observed fact, the command that cures it.

use std::io;
use std::path::Path;

use serde::Serialize;
use tonic::{Code, Status};

use crate::exit::Exit;

/// Metadata key of the stable code in a gRPC status.
const CODE_KEY: &str = "farm-code";
/// Metadata key of the curing command in a gRPC status.
const CURE_KEY: &str = "farm-cure";
/// What the daemon says before `cluster init` or `node join`.
const NOT_A_MEMBER: &str = "not_a_member";
/// What an operator types when nothing better is known.
pub const LOOK: &str = "farmctl cluster status";
/// What an operator types when no daemon answers.
pub const START: &str = "systemctl start farmd";

/// What the operator is told. `{"error": …}` of `--json` is this, without `exit`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// What the shell is told.
    #[serde(skip)]
    pub exit: Exit,
    /// Stable code, `snake_case`.
    pub code: String,
    /// What was observed, naming the thing.
    pub fact: String,
    /// The command that cures it.
    pub cure: String,
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// To be told to the operator.
    #[error("[{}] {}", .0.code, .0.fact)]
    Problem(Problem),
    /// The reader of the output went away: nobody is left to be told.
    #[error("the reader of the output went away")]
    PipeClosed,
}

impl Problem {
    /// A problem with its parts.
    pub fn new(exit: Exit, code: &str, fact: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { exit, code: code.into(), fact: fact.into(), cure: cure.into() }
    }

    /// No answer within `limit`; a change may or may not have happened.
    #[must_use]
    pub fn timeout(limit: std::time::Duration) -> Self {
        let fact = format!(
            "no answer within {}: a change may or may not have been made",
            humantime::format_duration(limit)
        );
        Self::new(Exit::Unknown, "timeout", fact, LOOK)
    }

    /// A file on this machine cannot be written.
    #[must_use]
    pub fn unwritable(path: &Path, error: &io::Error) -> Self {
        let fact = format!("{} cannot be written: {error}", path.display());
        Self::new(Exit::Local, "unwritable", fact, "df -h")
    }

    /// What a daemon answered instead of a result.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let text = |key| status.metadata().get(key).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty());
        match text(CODE_KEY) {
            Some(code) => Self::new(
                exit_of(status.code(), code),
                code,
                status.message(),
                text(CURE_KEY).unwrap_or(LOOK),
            ),
            None => Self::uncoded(status),
        }
    }

    /// A status that no farmd wrote: the transport, or an older daemon.
    fn uncoded(status: &Status) -> Self {
        let message = innermost(status);
        if status.code() == Code::Unimplemented {
            let fact = "the daemon does not know this call: it is older than this farmctl";
            return Self::new(Exit::Refused, "unknown_call", fact, "farmctl version");
        }
        let exit = exit_of(status.code(), "");
        if exit == Exit::Refused {
            return Self::new(exit, "refused", message, LOOK);
        }
        let fact = format!("the connection to the daemon broke before it answered: {message}");
        Self::new(exit, "connection_lost", fact, LOOK)
    }
}

/// What the shell is told about a status.
fn exit_of(grpc: Code, farm: &str) -> Exit {
    if farm == NOT_A_MEMBER {
        return Exit::NotMember;
    }
    match grpc {
        Code::Ok => Exit::Done,
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => Exit::Unknown,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Exit::Refused,
    }
}

/// The message of the last error of the chain: what the system said, without the layers around it.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    match last.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => last.to_string(),
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        let fact = format!("cannot write the output: {error}");
        Self::Problem(Problem::new(Exit::Local, "output_failed", fact, "df -h"))
    }
}
