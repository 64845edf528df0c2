//! Watches what keeps the virtual IP closed: the guard's table and the interfaces. Any event, and every few
//! seconds none, raises an alarm; what is really wrong is then asked of the kernel.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

/// Belt and braces: a missed event is found after this.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h) as a bit of the group mask.
const NFTABLES_GROUP: u32 = 1 << (7 - 1);
/// Largest notification that is read; the content does not matter, only that there was one.
const NOTIFICATION_MAX: usize = 8192;

/// Something that may concern filter or guard happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// nftables changed.
    Ruleset,
    /// An interface changed.
    Link,
    /// Time to look.
    Routine,
}

/// Raises alarms until the receiver is gone.
pub async fn watch(alarms: mpsc::Sender<Alarm>) {
    let ruleset = tokio::spawn(watch_ruleset(alarms.clone()));
    let links = tokio::spawn(watch_links(alarms.clone()));
    while alarms.send(Alarm::Routine).await.is_ok() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    ruleset.abort();
    links.abort();
}

async fn watch_links(alarms: mpsc::Sender<Alarm>) {
    let mut events = match farm_host::links::watch() {
        Ok(events) => events,
        Err(error) => return tracing::warn!(%error, "links are looked at every few seconds only"),
    };
    while events.next().await.is_some() {
        if alarms.send(Alarm::Link).await.is_err() {
            return;
        }
    }
}

async fn watch_ruleset(alarms: mpsc::Sender<Alarm>) {
    let socket = match ruleset_events() {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "the guard is looked at every few seconds only"),
    };
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        // All that is queued makes one alarm.
        while drain(socket.get_ref()) {}
        ready.clear_ready();
        if alarms.send(Alarm::Ruleset).await.is_err() {
            return;
        }
    }
}

fn ruleset_events() -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkNetFilter;
    let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, NFTABLES_GROUP))?;
    #[expect(deprecated, reason = "an OwnedFd stays open and the same for as long as it is registered")]
    AsyncFd::new(fd)
}

/// Whether there was something; an overrun (ENOBUFS) counts: events were lost, so there were some.
fn drain(fd: &OwnedFd) -> bool {
    let mut buffer = [0; NOTIFICATION_MAX];
    match socket::recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(_) | Err(nix::errno::Errno::ENOBUFS) => true,
        Err(_) => false,
    }
}
