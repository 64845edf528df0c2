//! How a refusal travels: gRPC status with the fact as message and code and cure as metadata.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::peer::Refused;
use crate::problem::Problem;
use crate::raft::ProposeError;

/// Metadata key of the stable code.
pub const CODE: &str = "farm-code";
/// Metadata key of the curing command.
pub const CURE: &str = "farm-cure";

/// A status that carries a problem.
#[must_use]
pub fn status(grpc: Code, problem: &Problem) -> Status {
    carry(grpc, &problem.code, &problem.fact, &problem.cure)
}

fn carry(grpc: Code, code: &str, fact: &str, cure: &str) -> Status {
    let mut status = Status::new(grpc, fact);
    for (key, text) in [(CODE, code), (CURE, cure)] {
        // Header values are visible ASCII; what is not is left out rather than refused.
        let ascii: String = text.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).collect();
        if let Ok(value) = MetadataValue::try_from(ascii) {
            status.metadata_mut().insert(key, value);
        }
    }
    status
}

/// The cluster refused a command.
#[must_use]
pub fn refused(refusal: &Refused) -> Status {
    carry(Code::FailedPrecondition, &refusal.code, &refusal.fact, &refusal.cure)
}

/// The request itself is wrong.
#[must_use]
pub fn invalid(code: &'static str, fact: impl Into<String>, cure: impl Into<String>) -> Status {
    status(Code::InvalidArgument, &Problem::new(code, fact, cure))
}

/// This daemon belongs to no cluster yet.
#[must_use]
pub fn not_member() -> Status {
    let fact = "this node belongs to no cluster yet: found one here, or join the one of a member";
    status(Code::FailedPrecondition, &Problem::new("not_a_member", fact, "farmctl node join PEER"))
}

/// Nobody leads, as far as this node knows.
#[must_use]
pub fn no_leader() -> Problem {
    let fact = "no leader: a majority of the voters cannot talk to each other";
    Problem::new("no_leader", fact, "farmctl cluster status")
}

/// The command could not be put into the log, or its fate is unknown.
#[must_use]
pub fn not_proposed(error: &ProposeError) -> Status {
    let cure = "farmctl cluster status";
    match error {
        ProposeError::NotLeader { .. } => status(Code::Unavailable, &no_leader()),
        ProposeError::Malformed(_) => invalid("bad_request", error.to_string(), "farmctl help"),
        ProposeError::Unknown | ProposeError::Stopped(_) => {
            status(Code::Unknown, &Problem::new("outcome_unknown", error.to_string(), cure))
        }
    }
}
