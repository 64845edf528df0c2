//! The driver's name of an interface, as `ethtool -i` shows it.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd;

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

nix::ioctl_readwrite_bad!(
    #[allow(unsafe_code)]
    siocethtool,
    SIOCETHTOOL,
    libc::ifreq
);

/// The driver behind `name`; `None` where the device does not say (`lo`).
pub(crate) fn driver(name: &str) -> Result<Option<String>, Error> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|e| Error::system("open a socket for ethtool", e))?;
    let mut info = DriverInfo { command: GET_DRIVER_INFO, driver: [0; 32], rest: [0; 160] };
    let mut request = request(name, &mut info);
    // SAFETY: `request` and the `info` it points to live until the call returns, and `info` has the
    // size the command defines (asserted above).
    #[allow(unsafe_code)]
    let answer = unsafe { siocethtool(fd.as_raw_fd(), &raw mut request) };
    // A device that vanished, or that has no driver to name, is not an error of the caller's.
    Ok(answer.ok().map(|_| text(&info.driver)).filter(|name| !name.is_empty()))
}

fn request(name: &str, info: &mut DriverInfo) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    // One byte stays 0: the kernel reads the name up to it.
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()).take(libc::IFNAMSIZ - 1) {
        *to = from.cast_signed();
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut *info).cast() };
    libc::ifreq { ifr_name, ifr_ifru }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
