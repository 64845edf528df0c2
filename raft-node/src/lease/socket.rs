//! Plain, non-blocking UDP sockets, one per cluster network of the node.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

use crate::problem::Problem;

/// DSCP CS6 (network control, RFC 4594 §3.1) as a TOS byte: leases go before bulk traffic where networks honour it.
const TOS_NETWORK_CONTROL: u32 = 0xc0;

/// One socket per network, by name.
#[derive(Debug)]
pub struct LeaseSockets(BTreeMap<String, UdpSocket>);

impl LeaseSockets {
    /// Binds to `port` of every address.
    ///
    /// # Errors
    /// `address_missing` or `port_in_use`, naming address and port.
    pub fn bind(addresses: &BTreeMap<String, IpAddr>, port: u16) -> Result<Self, Problem> {
        let mut sockets = BTreeMap::new();
        for (network, ip) in addresses {
            let socket = bind(SocketAddr::new(*ip, port)).map_err(|e| refused(*ip, port, "udp", &e))?;
            sockets.insert(network.clone(), socket);
        }
        Ok(Self(sockets))
    }

    /// No sockets at all.
    #[must_use]
    pub fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// File descriptors to poll.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.values().map(AsFd::as_fd)
    }

    /// Sends `bytes` over each network that both ends have. Errors are the network's: the next renewal tries again.
    pub fn send(&self, bytes: &[u8], peer: &BTreeMap<String, SocketAddr>) -> usize {
        let routes = peer.iter().filter_map(|(network, to)| Some((self.0.get(network)?, to)));
        routes.filter(|(socket, to)| socket.send_to(bytes, to).is_ok()).count()
    }

    /// Reads what has arrived, at most `limit` datagrams per network, and hands each to `take` with a way to answer.
    pub fn receive(&self, limit: usize, buffer: &mut [u8], mut take: impl FnMut(&[u8]) -> Option<Vec<u8>>) {
        for socket in self.0.values() {
            for _ in 0..limit {
                let Ok((len, from)) = socket.recv_from(buffer) else { break };
                if let Some(answer) = take(&buffer[..len]) {
                    // A lost answer is repaired by the next renewal.
                    let _ = socket.send_to(&answer, from);
                }
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), None)?;
    if address.is_ipv4() {
        socket.set_tos_v4(TOS_NETWORK_CONTROL)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Words a failed bind.
#[must_use]
pub fn refused(ip: IpAddr, port: u16, protocol: &str, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::AddrInUse => Problem::new(
            "port_in_use",
            format!(
                "{protocol} port {port} of {ip} is in use by another process; [ports] in farmd.toml may name another"
            ),
            format!("ss -lnp sport = :{port}"),
        ),
        io::ErrorKind::AddrNotAvailable => Problem::new(
            "address_missing",
            format!("{ip} is not an address of this machine, but [[address]] in farmd.toml says so"),
            "ip -brief address",
        ),
        _ => Problem::new(
            "bind_failed",
            format!("cannot listen on {protocol} {ip}:{port}: {error}"),
            "farmctl cluster status",
        ),
    }
}
