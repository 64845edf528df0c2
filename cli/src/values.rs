//! Values of the command line that are more than a word; each parsed once, with one sentence when wrong.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use farm_proto::v1;

/// Port of the gRPC service for clients.
pub const API_PORT: u16 = 7600;
/// Port of the gRPC service between nodes, which a joining node asks.
pub const PEER_PORT: u16 = 7601;
/// Longest name, in bytes (the limit of a DNS label).
const NAME_MAX: usize = 63;

/// Transport of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What makes a client's bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Criterion {
    /// All connections of a client go to one node.
    SourceAddress,
    /// Each connection on its own.
    SourcePort,
    /// All connections from an IPv6 /64 go to one node, whichever of its addresses a client uses.
    SourceNetwork,
}

/// How frames reach the node that accepts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Mode {
    /// One node receives and sends on; nothing to configure on switches.
    Directed,
    /// The switch floods a virtual MAC, one node accepts.
    Flood,
}

/// Timing: renewal / lease / election.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Profile {
    /// 25 ms / 100 ms / 75–150 ms.
    Fast,
    /// 100 ms / 500 ms / 300–600 ms.
    Standard,
    /// 250 ms / 2 s / 1–2 s.
    Virtual,
}

impl From<Protocol> for v1::Protocol {
    fn from(value: Protocol) -> Self {
        match value {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<Criterion> for v1::Criterion {
    fn from(value: Criterion) -> Self {
        match value {
            Criterion::SourceAddress => Self::SourceAddress,
            Criterion::SourcePort => Self::SourcePort,
            Criterion::SourceNetwork => Self::SourceNetwork,
        }
    }
}

impl From<Mode> for v1::Mode {
    fn from(value: Mode) -> Self {
        match value {
            Mode::Directed => Self::Directed,
            Mode::Flood => Self::Flood,
        }
    }
}

impl From<Profile> for v1::Profile {
    fn from(value: Profile) -> Self {
        match value {
            Profile::Fast => Self::Fast,
            Profile::Standard => Self::Standard,
            Profile::Virtual => Self::Virtual,
        }
    }
}

/// A machine and a port, `HOST[:PORT]` on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl HostPort {
    /// `text` as `HOST[:PORT]`, `[IPV6]:PORT` or a bare IPv6 address.
    fn parse(text: &str, default: u16) -> Result<Self, String> {
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: default });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: port(&address.port().to_string())? });
        }
        let (host, given) = text.rsplit_once(':').map_or((text, None), |(h, p)| (h, Some(p)));
        if !is_host(host) {
            return Err(format!("{host:?} is neither an IP address nor a host name"));
        }
        Ok(Self { host: host.into(), port: given.map_or(Ok(default), port)? })
    }

    /// As the address of the client API.
    ///
    /// # Errors
    /// One sentence that names what is wrong.
    pub fn api(text: &str) -> Result<Self, String> {
        Self::parse(text, API_PORT)
    }

    /// As the address of a peer.
    ///
    /// # Errors
    /// One sentence that names what is wrong.
    pub fn peer(text: &str) -> Result<Self, String> {
        Self::parse(text, PEER_PORT)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn is_host(text: &str) -> bool {
    let label = |l: &str| {
        (1..=NAME_MAX).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
    };
    // Digits and dots only: a mistyped address, not a name.
    text.split('.').all(label) && text.bytes().any(|b| b.is_ascii_alphabetic())
}

/// A port, 1 to 65535.
///
/// # Errors
/// One sentence.
pub fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a port: 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// A virtual IP: an address that hosts can have.
///
/// # Errors
/// One sentence.
pub fn vip(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an IP address"))?;
    let broadcast = ip == IpAddr::from([255, 255, 255, 255]);
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast {
        return Err(format!("{ip} cannot be a virtual IP: no host of a network can have it"));
    }
    Ok(ip)
}

/// A VLAN, `30`, or an outer and an inner one, `100.30`; each 1 to 4094. Gives the text back.
///
/// # Errors
/// One sentence.
pub fn vlan(text: &str) -> Result<String, String> {
    let id = |part: &str| part.parse().is_ok_and(|id: u16| (1..=4094).contains(&id));
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 2 || !parts.iter().all(|part| id(part)) {
        return Err(format!("{text:?} is not a VLAN: 1 to 4094, or two of them as OUTER.INNER"));
    }
    // As a number: 030 is 30.
    Ok(parts.iter().map(|part| part.trim_start_matches(['0', '+'])).collect::<Vec<_>>().join("."))
}

/// Name of a module.
///
/// # Errors
/// One sentence.
pub fn module_name(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let first = text.starts_with(|c: char| c.is_ascii_lowercase());
    if !first || text.len() > NAME_MAX || !text.bytes().all(good) {
        return Err(format!("{text:?} is not a module name: 1 to 63 of a-z, 0-9 and -, a letter first"));
    }
    Ok(text.into())
}

/// Name of a cluster, a node or a network.
///
/// # Errors
/// One sentence.
pub fn name(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !first || text.len() > NAME_MAX || !text.bytes().all(good) {
        return Err(format!(
            "{text:?} is not a name: 1 to 63 letters, digits, - _ and ., a letter or digit first"
        ));
    }
    Ok(text.into())
}

/// A time limit, greater than zero: `5s`, `500ms`, `2m`, or seconds without a unit.
///
/// # Errors
/// One sentence.
pub fn limit(text: &str) -> Result<Duration, String> {
    let whole = text.parse().map(Duration::from_secs);
    match whole.or_else(|_| humantime::parse_duration(text)) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a time limit: 5s, 500ms, 2m")),
    }
}

/// How long connections may stay after a change: a time limit, or `0s`.
///
/// # Errors
/// One sentence.
pub fn drain(text: &str) -> Result<Duration, String> {
    let whole = text.parse().map(Duration::from_secs);
    let drain = whole.or_else(|_| humantime::parse_duration(text));
    drain.map_err(|_| format!("{text:?} is not a length of time: 30s, 10m, 2h; 0s cuts connections off"))
}

/// When something ends: an instant, which may be so long from now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Until(pub SystemTime);

impl Until {
    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Until {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let from_now = humantime::parse_duration(text).ok().and_then(|d| SystemTime::now().checked_add(d));
        let instant = || humantime::parse_rfc3339_weak(text).ok();
        from_now.or_else(instant).map(Self).ok_or_else(|| {
            format!(
                "{text:?} is neither a length of time (30m, 2h) nor an instant in UTC (2026-01-31T06:00:00Z)"
            )
        })
    }
}

/// The address of a node on one network, `NETWORK=IP`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkAddress {
    /// Name of the network.
    pub network: String,
    /// Address of the node on it.
    pub ip: IpAddr,
}

impl FromStr for NetworkAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (network, ip) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NETWORK=IP"))?;
        let ip = ip.parse().map_err(|_| format!("{ip:?} is not an IP address"))?;
        Ok(Self { network: name(network)?, ip })
    }
}

/// A client as `explain` takes it, `IP[:PORT]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientAddress {
    /// Address.
    pub ip: IpAddr,
    /// Source port, 0 when not given.
    pub port: u16,
}

impl FromStr for ClientAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: 0 });
        }
        let address: SocketAddr = text.parse().map_err(|_| format!("{text:?} is not IP[:PORT]"))?;
        Ok(Self { ip: address.ip(), port: address.port() })
    }
}

/// A service as `explain` takes it, `VIP:PORT[/tcp|/udp]`; TCP when not said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceAddress {
    /// Virtual IP and port.
    pub at: SocketAddr,
    /// Transport.
    pub protocol: Protocol,
}

impl FromStr for ServiceAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (at, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let protocol = Protocol::from_str(protocol, false)
            .map_err(|_| format!("{protocol:?} is neither tcp nor udp"))?;
        let at: SocketAddr = at.parse().map_err(|_| format!("{at:?} is not VIP:PORT"))?;
        port(&at.port().to_string())?;
        Ok(Self { at, protocol })
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.at)
    }
}
