//! Single checks: one question each, asked once within a time limit. How often, and what follows, is the caller's.
//!
//! Each acts in the network namespace of the thread that first polls it. Where its future is dropped it leaves nothing
//! running.

mod http;
mod link;
mod name;
mod ping;
mod program;
mod tcp;

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use nix::errno::Errno;
use regex::bytes::Regex;
use tokio::time::{Instant, timeout_at};

pub use link::AskOn;
pub(crate) use ping::{checksum, types};
pub use program::Program;

/// What a check found. The text is one sentence for an operator: what was asked, and what came instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is as it should be.
    Good,
    /// It is not.
    Bad(String),
    /// The check itself could not be made: no descriptor is left, something is forbidden, a program is missing. Says
    /// nothing about what was to be checked.
    Unknown(String),
}

/// One question.
#[derive(Clone, Debug)]
pub enum Check {
    /// A TCP connection can be opened. It is closed in order at once, nothing is sent.
    Tcp {
        /// Where to.
        to: Target,
    },
    /// A GET over HTTP/1.1, without TLS, is answered as it should be (RFC 9110, RFC 9112). No redirect is followed. The
    /// body is read only where it matters. No more than 64 KiB of the head and 1 MiB of the body are read.
    Http {
        /// Where to.
        to: Target,
        /// The field `Host`; the target where it is empty.
        host: String,
        /// Path and query, with the `/` it begins with.
        path: String,
        /// These answers are good.
        status: RangeInclusive<u16>,
        /// Must be found in the body: all of it, or its first MiB.
        body: Option<Regex>,
    },
    /// An ICMP echo is answered (RFC 792, RFC 4443 §4). One request is sent.
    Ping {
        /// Who is to answer.
        to: IpAddr,
    },
    /// An ICMP echo in an IP packet of this size, which nobody may take apart, is answered in full.
    Carries {
        /// Who is to answer.
        to: IpAddr,
        /// Bytes of the packet with its IP header.
        size: u16,
    },
    /// The interface exists, is switched on, and has carrier.
    Interface {
        /// Its name.
        name: String,
        /// It also has this address, ready for use.
        address: Option<IpAddr>,
    },
    /// Some interface of this host has the address, ready for use.
    Address {
        /// The address.
        ip: IpAddr,
        /// And nobody else on that link has it (RFC 5227 §2.1, RFC 4862 §5.4). Takes a second, or what is left of the
        /// limit.
        unique: Option<AskOn>,
    },
    /// A program says so.
    Program(Program),
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By its name: looked up each time, all its addresses are tried one after the other.
    Name(String),
    /// By its address.
    Address(IpAddr),
}

impl From<&str> for Host {
    /// What is no address is a name.
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.into()), Self::Address)
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(ip) => SocketAddr::new(*ip, self.port).fmt(f),
        }
    }
}

impl Check {
    /// Asks, and waits for the answer no longer than `limit`. Must be called within a tokio runtime.
    pub async fn run(&self, limit: Duration) -> Finding {
        let limit = Limit::new(limit);
        let found = match self {
            Self::Tcp { to } => tcp::check(to, limit).await,
            Self::Http { to, host, path, status, body } => {
                let wanted = http::Wanted { host, path, status, body: body.as_ref() };
                http::check(to, &wanted, limit).await
            }
            Self::Ping { to } => ping::check(*to, limit).await,
            Self::Carries { to, size } => ping::carries(*to, *size, limit).await,
            Self::Interface { name, address } => link::interface(name, *address, limit).await,
            Self::Address { ip, unique } => link::address(*ip, unique.as_ref(), limit).await,
            Self::Program(program) => program.check(limit).await,
        };
        found.err().unwrap_or(Finding::Good)
    }
}

/// `Err` is never [`Finding::Good`].
type Found<T = ()> = Result<T, Finding>;

fn bad<T>(text: impl Into<String>) -> Found<T> {
    Err(Finding::Bad(text.into()))
}

fn unknown<T>(text: impl Into<String>) -> Found<T> {
    Err(Finding::Unknown(text.into()))
}

/// How long a check may take, and when that is over. Shown as the time it may take.
#[derive(Clone, Copy)]
struct Limit {
    length: Duration,
    ends: Instant,
}

impl Limit {
    /// Nobody waits longer; an [`Instant`] has an end.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

    fn new(length: Duration) -> Self {
        Self { length, ends: Instant::now() + length.min(Self::LONGEST) }
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// An equal share of what is left, for the next of `count`. The last one has all of it.
    fn share(self, count: usize) -> Self {
        match u32::try_from(count) {
            Ok(count) if count > 1 => {
                let share = self.left() / count;
                let whole = share - Duration::from_nanos(u64::from(share.subsec_nanos() % 1_000_000));
                Self { length: whole, ends: Instant::now() + share }
            }
            _ => self,
        }
    }

    /// What comes of `work`, or `late` where that takes too long.
    async fn of<T>(&self, work: impl Future<Output = Found<T>>, late: impl FnOnce() -> String) -> Found<T> {
        match timeout_at(self.ends, work).await {
            Ok(found) => found,
            Err(_) => bad(late()),
        }
    }
}

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.length).fmt(f)
    }
}

/// What it means that `whom` could not be spoken to. An error of the network is an answer; one of this host, such as
/// that it has no descriptor left or its own filter forbids it, is none.
fn unreachable(whom: impl Display, error: &io::Error) -> Finding {
    let why = words(error);
    match errno(error) {
        Some(Errno::ECONNREFUSED) => Finding::Bad(format!("{whom} refused the connection")),
        Some(Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNABORTED) => {
            Finding::Bad(format!("{whom} broke off the connection"))
        }
        // As the kernel passes on ICMP errors (`icmp_err_convert`, `tab_unreach` of IPv6), and says itself of routes.
        Some(
            Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETDOWN
            | Errno::ENONET
            | Errno::ENOPROTOOPT
            | Errno::EPROTO
            | Errno::EACCES
            | Errno::ETIMEDOUT,
        ) => Finding::Bad(format!("{whom} cannot be reached: {why}")),
        _ => Finding::Unknown(format!("{whom} cannot be asked: {why}")),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// As the manual words it, without the number.
fn words(error: &io::Error) -> String {
    errno(error).map_or_else(|| error.to_string(), |errno| errno.desc().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_here_says_nothing_about_the_other_side() {
        let found = |errno: Errno| unreachable("192.0.2.1:80", &errno.into());
        for own in
            [Errno::EMFILE, Errno::ENFILE, Errno::EPERM, Errno::ENOBUFS, Errno::EADDRNOTAVAIL, Errno::EINVAL]
        {
            assert!(matches!(found(own), Finding::Unknown(_)), "{own}");
        }
        assert_eq!(found(Errno::ECONNREFUSED), Finding::Bad("192.0.2.1:80 refused the connection".into()));
        let away = "192.0.2.1:80 cannot be reached: No route to host";
        assert_eq!(found(Errno::EHOSTUNREACH), Finding::Bad(away.into()));
    }

    /// A silent first address leaves time for the second.
    #[test]
    fn time_is_shared_out_among_those_that_are_left() {
        let limit = Limit::new(Duration::from_secs(3));
        let first = limit.share(3);
        assert!(first.ends < limit.ends - Duration::from_secs(1), "{first}");
        assert!(
            first.length <= Duration::from_secs(1) && first.length.subsec_nanos().is_multiple_of(1_000_000),
            "{first}"
        );
        assert_eq!([limit.share(1).ends, limit.share(0).ends], [limit.ends; 2]);
        assert!(Limit::new(Duration::MAX).left() > Duration::from_secs(1_000_000));
    }
}
