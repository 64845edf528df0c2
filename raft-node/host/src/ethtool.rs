//! What an interface says of itself: its driver, as `ethtool -i` shows it, and whether it takes VLAN tags off.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::Error;

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: u16 = 0x8946;
/// `ETHTOOL_GDRVINFO` of `linux/ethtool.h`.
const GET_DRIVER_INFO: u32 = 3;

/// `struct ethtool_drvinfo`: only the driver's name is of interest.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

/// `ETHTOOL_GFLAGS` and `ETH_FLAG_RXVLAN` of `linux/ethtool.h`.
const GET_FLAGS: u32 = 0x25;
const TAKES_TAGS_OFF: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

const _: () = assert!(size_of::<Value>() == 8);

nix::ioctl_readwrite_bad!(
    #[allow(unsafe_code)]
    siocethtool,
    SIOCETHTOOL,
    libc::ifreq
);

/// The driver behind `name`; `None` where the device does not say (`lo`).
pub(crate) fn driver(name: &str) -> Result<Option<String>, Error> {
    let fd = any_socket()?;
    let mut info = DriverInfo { command: GET_DRIVER_INFO, driver: [0; 32], rest: [0; 160] };
    let mut request = request(name, (&raw mut info).cast());
    // SAFETY: `request` and the `info` it points to live until the call returns, and `info` has the
    // size the command defines (asserted above).
    #[allow(unsafe_code)]
    let answer = unsafe { siocethtool(fd.as_raw_fd(), &raw mut request) };
    // A device that vanished, or that has no driver to name, is not an error of the caller's.
    Ok(answer.ok().map(|_| text(&info.driver)).filter(|name| !name.is_empty()))
}

/// Whether `name` takes 802.1Q tags off received frames (`rx-vlan-offload`).
pub(crate) fn takes_tags_off(name: &str) -> Result<bool, Error> {
    let fd = any_socket()?;
    let mut flags = Value { command: GET_FLAGS, data: 0 };
    let mut request = request(name, (&raw mut flags).cast());
    // SAFETY: as in `driver`; the command reads and writes an `ethtool_value`.
    #[allow(unsafe_code)]
    let answer = unsafe { siocethtool(fd.as_raw_fd(), &raw mut request) };
    // As above.
    Ok(answer.is_ok() && flags.data & TAKES_TAGS_OFF != 0)
}

fn any_socket() -> Result<OwnedFd, Error> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|e| Error::system("open a socket for ethtool", e))
}

fn request(name: &str, data: *mut libc::c_char) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    // One byte stays 0: the kernel reads the name up to it.
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()).take(libc::IFNAMSIZ - 1) {
        *to = from.cast_signed();
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: data };
    libc::ifreq { ifr_name, ifr_ifru }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
