//! Kernel settings without which a virtual IP on `lo` breaks its neighbours, and how they were.
//!
//! The kernel takes the maximum of `all` and the device, so both are raised, and never lowered: an
//! administrator may have chosen more.
//!
//! All are of IPv4. For IPv6 the kernel does by itself what they ask for: it answers a solicitation
//! only for an address of the link on which it came in, and names itself in its own only with an
//! address of the link on which they go out, else with the link-local one. An address on `lo` is
//! neither (`ndisc_recv_ns` and `ndisc_solicit` of `net/ipv6/ndisc.c`). That ends where somebody
//! has set `proxy_ndp` and a proxy entry for the virtual IP, which nobody does by chance.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::net::if_::if_nametoindex;

use crate::Error;

const ROOT: &str = "/proc/sys/net/ipv4/conf";

/// The settings and their least values.
const WANTED: [(&str, u32); 2] = [
    // Otherwise the kernel's own requests name the virtual IP as their sender and draw every
    // client's entry to this node.
    ("arp_announce", 2),
    // Second line behind the filter: without it every node would answer for the virtual IP.
    ("arp_ignore", 1),
];

/// One setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file below `/proc/sys`.
    pub path: PathBuf,
    /// The value found.
    pub before: u32,
    /// The value written.
    pub after: u32,
}

/// What [`prepare`] changed, for [`Restore::restore`]; plain values, so that a caller may keep it
/// beyond its own life. Where two interfaces are prepared, restore in reverse order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "the changes can only be undone with it"]
pub struct Restore {
    /// In the order in which they were made; empty if all was as it should be.
    pub changes: Vec<Change>,
}

/// Sets `arp_announce` to at least 2 and `arp_ignore` to at least 1, for all devices and for
/// `ifname`. What is done stays done if a later step fails; call again after the cure.
///
/// # Errors
/// [`Error::NoSuchInterface`]; [`Error::System`] when `/proc/sys` is read-only or root lacks.
pub fn prepare(ifname: &str) -> Result<Restore, Error> {
    // Also keeps paths like `../lo` out: no interface has such a name.
    if_nametoindex(ifname).map_err(|_| Error::NoSuchInterface(ifname.into()))?;
    let mut restore = Restore::default();
    for directory in [Path::new(ROOT).join("all"), Path::new(ROOT).join(ifname)] {
        for (name, least) in WANTED {
            restore.changes.extend(raise(directory.join(name), least)?);
        }
    }
    Ok(restore)
}

/// `arp_announce` and `arp_ignore` as they are in force for `ifname`.
///
/// # Errors
/// [`Error::NoSuchInterface`]; [`Error::System`] when `/proc/sys` cannot be read.
pub fn in_force(ifname: &str) -> Result<[u32; 2], Error> {
    if_nametoindex(ifname).map_err(|_| Error::NoSuchInterface(ifname.into()))?;
    let both = |name: &str| {
        let [all, own] = ["all", ifname].map(|device| read(&Path::new(ROOT).join(device).join(name)));
        Ok::<u32, Error>(all?.max(own?))
    };
    let [(announce, _), (ignore, _)] = WANTED;
    Ok([both(announce)?, both(ignore)?])
}

impl Restore {
    /// Puts back what [`prepare`] changed, the last change first. A value that somebody changed
    /// since, and the setting of a device that is gone, are left alone.
    ///
    /// # Errors
    /// [`Error::System`] for the first setting that cannot be written.
    pub fn restore(self) -> Result<(), Error> {
        self.changes.iter().rev().try_for_each(put_back)
    }
}

fn raise(path: PathBuf, least: u32) -> Result<Option<Change>, Error> {
    let before = read(&path)?;
    if before >= least {
        return Ok(None);
    }
    write(&path, least)?;
    Ok(Some(Change { path, before, after: least }))
}

fn put_back(change: &Change) -> Result<(), Error> {
    match read(&change.path) {
        Ok(now) if now == change.after => write(&change.path, change.before),
        Ok(_) => Ok(()),
        Err(e) if e.errno() == Some(nix::errno::Errno::ENOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

fn read(path: &Path) -> Result<u32, Error> {
    let text = fs::read_to_string(path).map_err(|e| failed("read", path, e))?;
    text.trim().parse().map_err(|_| Error::Malformed {
        action: format!("read {}", path.display()),
        detail: format!("`{}` is no number", text.trim()),
    })
}

fn write(path: &Path, value: u32) -> Result<(), Error> {
    fs::write(path, value.to_string()).map_err(|e| failed("write", path, e))
}

fn failed(verb: &str, path: &Path, source: io::Error) -> Error {
    Error::system(format!("{verb} {}", path.display()), source)
}
