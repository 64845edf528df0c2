//! What is counted without the flows' help: resets by the switch, SYNs that were sent again by the client's kernel.

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::names::Place;
use crate::topology::in_switch;
use crate::{FIRST_VIP, shell};

/// The counters are in the switch.
pub(super) struct Wire;

/// Since the machines are there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) resets: u64,
    pub(super) syn_retrans: u64,
}

impl Wire {
    /// Has the switch count.
    pub(super) fn tap(lab: &Lab) -> Result<Self> {
        let rules = format!(
            "table bridge resets {{\n chain forward {{\n  type filter hook forward priority -1\n  ip saddr {FIRST_VIP} \
             tcp flags & rst == rst counter\n  ip daddr {FIRST_VIP} tcp flags & rst == rst counter\n }}\n}}\n"
        );
        shell::feed(lab.namespace(Place::Switch).command("nft")?.args(["-f", "-"]), &rules)?;
        Ok(Self)
    }

    pub(super) fn counts(&self, lab: &Lab) -> Result<Counts> {
        let text = in_switch(lab.spec(), "nft", &["list", "table", "bridge", "resets"])?;
        // Of the thread: only the thread is in the namespace.
        let read = || std::fs::read_to_string("/proc/thread-self/net/netstat").context("netstat");
        let netstat = lab.namespace(Place::Client).run(read)?;
        let syn_retrans = tcp_extension(&netstat, "TCPSynRetrans").context("no TCPSynRetrans")?;
        Ok(Counts { resets: packets(&text), syn_retrans })
    }
}

/// Of all counters in a listing of nft.
fn packets(listing: &str) -> u64 {
    let counters = listing.split("counter packets ").skip(1);
    counters.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// `/proc/net/netstat`: a line of names, then a line of values.
fn tcp_extension(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|known| known == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        let listing = "ip saddr counter packets 3 bytes 120\n ip daddr counter packets 4 bytes 160\n";
        assert_eq!(packets(listing), 7);
        let netstat = "TcpExt: SyncookiesSent TCPSynRetrans\nTcpExt: 5 9\nIpExt: InNoRoutes\nIpExt: 0\n";
        assert_eq!(tcp_extension(netstat, "TCPSynRetrans"), Some(9));
        assert_eq!(tcp_extension(netstat, "TCPNothing"), None);
    }
}
