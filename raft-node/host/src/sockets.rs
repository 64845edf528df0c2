//! The TCP and UDP sockets behind virtual addresses, from the kernel's sock_diag interface.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use futures::{Stream, StreamExt};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT1,
    TCP_FIN_WAIT2, TCP_LAST_ACK, TCP_SYN_RECV, TCP_SYN_SENT,
};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags, Timer,
};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::proto::ConnectionHandle;
use rtnetlink::sys::{SocketAddr as NetlinkAddr, TokioSocket, protocols::NETLINK_SOCK_DIAG};

use crate::Error;
use crate::netlink::Driver;

/// State of a TCP socket that a peer may still send to. LISTEN, CLOSE and TIME_WAIT are not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The handshake is half done by the peer: a request socket (`NEW_SYN_RECV` in the kernel), or
    /// a fast-open socket.
    SynReceived,
    /// The handshake is half done by us.
    SynSent,
    /// Open on both sides.
    Established,
    /// Closed by us, not yet acknowledged.
    FinWait1,
    /// Closed by us and acknowledged; the peer may send.
    FinWait2,
    /// Closed by the peer; we may send.
    CloseWait,
    /// Closed by both, our close not yet acknowledged.
    LastAck,
    /// Closed by both at once.
    Closing,
}

/// One socket with a peer. IPv4-mapped addresses are shown as the IPv4 addresses they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket {
    /// Our side.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
    /// Its state when the kernel listed it.
    pub state: State,
}

/// A sock_diag netlink socket, bound for life to the network namespace of the thread that opened
/// it; sockets of other namespaces are not seen.
#[derive(Debug)]
pub struct SockDiag {
    handle: ConnectionHandle<SockDiagMessage>,
    _driver: Driver,
}

const ACTION: &str = "list the sockets";

impl SockDiag {
    /// Opens the socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::System`] when the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _unsolicited) =
            rtnetlink::proto::new_connection_with_socket::<_, TokioSocket>(NETLINK_SOCK_DIAG)
                .map_err(|e| Error::system("open a sock_diag socket", e))?;
        Ok(SockDiag { handle, _driver: Driver::spawn(connection) })
    }

    /// The sockets whose local address and port are in `services`, sorted. Sockets that open or
    /// close while the kernel walks its table may or may not be in it; one that exists all the time
    /// is.
    ///
    /// # Errors
    /// [`Error::System`] when the kernel refuses (`CONFIG_INET_DIAG` off, module not loadable).
    pub async fn tcp(&mut self, services: &BTreeSet<(IpAddr, u16)>) -> Result<Vec<Socket>, Error> {
        self.list(IPPROTO_TCP, &tcp_states(), services).await
    }

    /// The same for UDP: the sockets that are connected to a peer, each `Established`.
    ///
    /// # Errors
    /// As [`SockDiag::tcp`].
    pub async fn udp(&mut self, services: &BTreeSet<(IpAddr, u16)>) -> Result<Vec<Socket>, Error> {
        self.list(IPPROTO_UDP, &StateFlags::ESTABLISHED, services).await
    }

    /// Where TCP listens on one of `ports`.
    ///
    /// # Errors
    /// As [`SockDiag::tcp`].
    pub async fn listeners(&mut self, ports: &BTreeSet<u16>) -> Result<BTreeSet<SocketAddr>, Error> {
        self.bound(IPPROTO_TCP, &StateFlags::LISTEN, ports).await
    }

    /// Where a UDP socket is bound to one of `ports`, connected or not.
    ///
    /// # Errors
    /// As [`SockDiag::tcp`].
    pub async fn receivers(&mut self, ports: &BTreeSet<u16>) -> Result<BTreeSet<SocketAddr>, Error> {
        self.bound(IPPROTO_UDP, &(StateFlags::ESTABLISHED | StateFlags::CLOSE), ports).await
    }

    async fn bound(
        &mut self,
        protocol: u8,
        states: &StateFlags,
        ports: &BTreeSet<u16>,
    ) -> Result<BTreeSet<SocketAddr>, Error> {
        let mut found = BTreeSet::new();
        if ports.is_empty() {
            return Ok(found);
        }
        for family in [AF_INET, AF_INET6] {
            let mut answers = self.dump(request(family, protocol, states))?;
            while let Some(answer) = answers.next().await {
                let local = header(answer.payload)?.socket_id;
                let at = SocketAddr::new(local.source_address.to_canonical(), local.source_port);
                found.extend(Some(at).filter(|at| ports.contains(&at.port())));
            }
        }
        Ok(found)
    }

    async fn list(
        &mut self,
        protocol: u8,
        states: &StateFlags,
        services: &BTreeSet<(IpAddr, u16)>,
    ) -> Result<Vec<Socket>, Error> {
        let mut found = BTreeSet::new();
        if services.is_empty() {
            return Ok(Vec::new());
        }
        // A dual-stack listener's IPv4 connections are IPv6 sockets: always ask for both.
        for family in [AF_INET, AF_INET6] {
            let mut answers = self.dump(request(family, protocol, states))?;
            while let Some(answer) = answers.next().await {
                found.extend(socket(&header(answer.payload)?).filter(|s| is_of(s, services)));
            }
        }
        Ok(found.into_iter().collect())
    }

    fn dump(
        &mut self,
        request: InetRequest,
    ) -> Result<impl Stream<Item = NetlinkMessage<SockDiagMessage>> + use<>, Error> {
        let mut message = NetlinkMessage::from(SockDiagMessage::InetRequest(request));
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        self.handle
            .request(message, NetlinkAddr::new(0, 0))
            .map_err(|_| Error::Closed { action: ACTION.into() })
    }
}

fn is_of(socket: &Socket, services: &BTreeSet<(IpAddr, u16)>) -> bool {
    services.contains(&(socket.local.ip(), socket.local.port()))
}

fn request(family: u8, protocol: u8, states: &StateFlags) -> InetRequest {
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    InetRequest { family, protocol, extensions: ExtensionFlags::empty(), states: states.clone(), socket_id }
}

fn tcp_states() -> StateFlags {
    StateFlags::ESTABLISHED
        | StateFlags::SYN_SENT
        | StateFlags::SYN_RECV
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING
}

fn header(payload: NetlinkPayload<SockDiagMessage>) -> Result<InetResponseHeader, Error> {
    match payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(answer)) => Ok(answer.header),
        NetlinkPayload::Error(e) => Err(Error::system(ACTION, e.to_io())),
        NetlinkPayload::Overrun(_) => Err(malformed("answers were lost")),
        other => Err(malformed(format!("{other:?}"))),
    }
}

fn socket(header: &InetResponseHeader) -> Option<Socket> {
    // A closed socket whose FIN_WAIT2 the kernel keeps in a TIME_WAIT entry: no process has it.
    if header.timer == Some(Timer::TimeWait) {
        return None;
    }
    let id = &header.socket_id;
    Some(Socket {
        local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
        remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        state: state(header.state)?,
    })
}

fn state(code: u8) -> Option<State> {
    match code {
        TCP_SYN_RECV => Some(State::SynReceived),
        TCP_SYN_SENT => Some(State::SynSent),
        TCP_ESTABLISHED => Some(State::Established),
        TCP_FIN_WAIT1 => Some(State::FinWait1),
        TCP_FIN_WAIT2 => Some(State::FinWait2),
        TCP_CLOSE_WAIT => Some(State::CloseWait),
        TCP_LAST_ACK => Some(State::LastAck),
        TCP_CLOSING => Some(State::Closing),
        // Not asked for.
        _ => None,
    }
}

fn malformed(detail: impl Into<String>) -> Error {
    Error::Malformed { action: ACTION.into(), detail: detail.into() }
}
