//! The one error of this crate: which action the kernel refused, why, and what helps.

use std::io;

use nix::errno::Errno;

/// The host refused, or does not have, what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or netlink request failed.
    #[error("cannot {action}: {source}{}", remedy(.source))]
    System {
        /// What was attempted, as an infinitive: `add 192.0.2.1 to lo`.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No interface has this name or index in this network namespace.
    #[error("there is no interface {0} here; `ip -brief link` lists those that exist")]
    NoSuchInterface(String),
    /// IPv6 is switched off on an interface that needs it.
    #[error(
        "cannot {action}: IPv6 is switched off on {interface}; \
         `sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0` switches it on"
    )]
    NoIpv6 {
        /// What was attempted.
        action: String,
        /// The interface's name.
        interface: String,
    },
    /// The kernel answered with something else than the interface defines.
    #[error("cannot {action}: the kernel's answer makes no sense ({detail}); is this kernel 5.14 or newer?")]
    Malformed {
        /// What was attempted.
        action: String,
        /// What came instead.
        detail: String,
    },
    /// The task that drives the netlink socket has ended, with its runtime.
    #[error("cannot {action}: the netlink connection is closed; open a new one")]
    Closed {
        /// What was attempted.
        action: String,
    },
}

impl Error {
    /// The errno behind the error, where the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::System { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Error::NoSuchInterface(_) => Some(Errno::ENODEV),
            Error::NoIpv6 { .. } => Some(Errno::EACCES),
            Error::Malformed { .. } | Error::Closed { .. } => None,
        }
    }

    pub(crate) fn system(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::System { action: action.into(), source: source.into() }
    }

    pub(crate) fn rtnetlink(action: impl Into<String>, error: rtnetlink::Error) -> Self {
        let action = action.into();
        match error {
            rtnetlink::Error::NetlinkError(message) => Error::System { action, source: message.to_io() },
            rtnetlink::Error::RequestFailed => Error::Closed { action },
            other => Error::Malformed { action, detail: other.to_string() },
        }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "; this needs CAP_NET_ADMIN and CAP_NET_RAW: run as root or from farmd's systemd unit"
        }
        _ => "",
    }
}
