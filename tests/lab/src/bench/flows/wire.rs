//! What is counted without the flows' help: resets by the switch, SYNs that were sent again by the client's kernel.

use anyhow::{Context, Result};

use super::PORT;
use crate::lab::Lab;
use crate::names::Place;
use crate::topology::in_switch;
use crate::{FIRST_VIP, shell};

/// The counters are in the switch.
pub(super) struct Wire;

/// Since the machines are there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// From the virtual IP.
    pub(super) resets: u64,
    /// To the virtual IP.
    pub(super) client_resets: u64,
    pub(super) syn_retrans: u64,
}

impl Counts {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            resets: self.resets - before.resets,
            client_resets: self.client_resets - before.client_resets,
            syn_retrans: self.syn_retrans - before.syn_retrans,
        }
    }
}

impl Wire {
    /// Has the switch count.
    pub(super) fn tap(lab: &Lab) -> Result<Self> {
        let rules = format!(
            "table bridge resets {{\n chain forward {{\n  type filter hook forward priority -1\n  ip saddr {FIRST_VIP} \
             tcp sport {PORT} tcp flags & rst == rst counter\n  ip daddr {FIRST_VIP} tcp dport {PORT} tcp flags & rst == \
             rst counter\n }}\n}}\n"
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
        let resets = packets(&text, "saddr").context("no counter")?;
        let client_resets = packets(&text, "daddr").context("no counter")?;
        Ok(Counts { resets, client_resets, syn_retrans })
    }
}

/// Of the rule with `word` in a listing of nft.
fn packets(listing: &str, word: &str) -> Option<u64> {
    let rule = listing.lines().find(|line| line.contains(word))?;
    rule.split_once("counter packets ")?.1.split(' ').next()?.parse().ok()
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
        assert_eq!([packets(listing, "saddr"), packets(listing, "daddr")], [Some(3), Some(4)]);
        let netstat = "TcpExt: SyncookiesSent TCPSynRetrans\nTcpExt: 5 9\nIpExt: InNoRoutes\nIpExt: 0\n";
        assert_eq!(tcp_extension(netstat, "TCPSynRetrans"), Some(9));
        assert_eq!(tcp_extension(netstat, "TCPNothing"), None);
    }
}
