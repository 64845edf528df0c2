//! One connection to one peer, over whichever of its addresses works.

use std::net::SocketAddr;
use std::time::Duration;

use farm_core::id::NodeId;
use farm_proto::v1::peer_client::PeerClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::gate::{Denied, Gate, Stamp, refusal};
use super::types::Endpoint;

/// A peer on the same site answers a SYN within a millisecond; behind a dead one nothing may wait longer than this.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);
/// A connection whose peer vanished without a FIN is given up after this much silence (interval plus timeout).
const KEEPALIVE: Duration = Duration::from_millis(500);
/// Timeouts in a row after which the next address is tried: one may be a slow disk, three are a dead path.
const TIMEOUTS_MAX: u32 = 3;
/// Largest message either way. An append of 64 entries of 32 KiB (a Move of all buckets to 32 nodes) has 2 MiB.
pub(crate) const MESSAGE_MAX: usize = 16 << 20;

/// A generated client whose calls carry this node's credentials.
pub type Client = PeerClient<InterceptedService<Channel, Stamp>>;

/// Why a call to a peer has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The peer did not answer in time. It may have acted all the same.
    #[error("{address} did not answer within {after:?}")]
    Timeout {
        /// The address tried.
        address: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
    /// The peer cannot be reached on this address; the next call tries the next one.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// The address tried.
        address: SocketAddr,
        /// What the transport says.
        reason: String,
    },
    /// The membership names no address for the peer.
    #[error("the peer has no address; set one with farmctl node set")]
    NoAddress,
    /// The peer's gate refused us.
    #[error("{address} refused this node ({code}): {reason}")]
    Refused {
        /// The address tried.
        address: SocketAddr,
        /// Stable code, see [`Denied::code`].
        code: String,
        /// The peer's words.
        reason: String,
    },
    /// We refuse the peer's answer.
    #[error("the answer of {address} was not accepted: {denied}")]
    Answer {
        /// The address tried.
        address: SocketAddr,
        /// Why.
        denied: Denied,
    },
    /// The peer answered with an error of its own.
    #[error("{address} answered: {status}")]
    Status {
        /// The address tried.
        address: SocketAddr,
        /// Its answer.
        status: Box<Status>,
    },
}

/// A connection to a peer. Connects when first used; not shared: one call at a time.
pub struct Link {
    gate: Gate,
    to: Option<NodeId>,
    endpoint: Endpoint,
    at: usize,
    timeouts: u32,
    client: Option<Client>,
}

impl Link {
    /// A link that is not connected yet, to the node `to`, or to whoever is there.
    #[must_use]
    pub fn new(gate: Gate, to: Option<NodeId>, endpoint: Endpoint) -> Self {
        Self { gate, to, endpoint, at: 0, timeouts: 0, client: None }
    }

    /// Who says who this node is.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// From the next call on the peer is at `endpoint`.
    pub fn redirect(&mut self, endpoint: &Endpoint) {
        if self.endpoint != *endpoint {
            *self = Self::new(self.gate.clone(), self.to, endpoint.clone());
        }
    }

    /// Makes one call. Must run on a tokio runtime. Cancel-safe: a dropped call leaves the link usable.
    ///
    /// # Errors
    /// [`CallError`]. After an unreachable address, and after three timeouts in a row, the next call uses the next one.
    pub async fn call<T, F, Fut>(&mut self, timeout: Duration, call: F) -> Result<T, CallError>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let address = *self.endpoint.0.get(self.at).ok_or(CallError::NoAddress)?;
        let client = self.client.get_or_insert_with(|| connect(&self.gate, self.to, address)).clone();
        match tokio::time::timeout(timeout, call(client)).await {
            Ok(Ok(response)) => self.accept(address, response),
            Ok(Err(status)) => Err(self.failed(address, status)),
            Err(_) => {
                self.timed_out();
                Err(CallError::Timeout { address, after: timeout })
            }
        }
    }

    fn accept<T>(&mut self, address: SocketAddr, response: Response<T>) -> Result<T, CallError> {
        self.timeouts = 0;
        let answer = self.gate.check_answer(self.to, response.metadata());
        answer.map_err(|denied| CallError::Answer { address, denied })?;
        Ok(response.into_inner())
    }

    fn failed(&mut self, address: SocketAddr, status: Status) -> CallError {
        if let Some(code) = refusal(&status) {
            self.gate.refused(code, status.metadata());
            let (code, reason) = (code.to_owned(), status.message().to_owned());
            return CallError::Refused { address, code, reason };
        }
        // What tonic makes of a broken transport; the peer's own errors have other codes.
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => {
                self.rotate();
                CallError::Unreachable { address, reason: reason(&status) }
            }
            _ => CallError::Status { address, status: Box::new(status) },
        }
    }

    fn timed_out(&mut self) {
        self.timeouts += 1;
        if self.timeouts >= TIMEOUTS_MAX {
            self.rotate();
        }
    }

    /// Drops the connection: a dead one that stays pooled would starve the peer for ever.
    fn rotate(&mut self) {
        self.client = None;
        self.timeouts = 0;
        self.at = (self.at + 1) % self.endpoint.0.len().max(1);
    }
}

fn connect(gate: &Gate, to: Option<NodeId>, address: SocketAddr) -> Client {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .expect("a socket address makes a valid URI")
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_lazy();
    PeerClient::with_interceptor(channel, Stamp { gate: gate.clone(), to })
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}

/// The innermost cause says what happened; the outer ones say "transport error".
fn reason(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
