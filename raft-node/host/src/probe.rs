//! Is an address in use on the link? (RFC 5227 §2.1, RFC 4862 §5.4)

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, interval_at, timeout_at};

use crate::claim::Claims;
use crate::{Error, Mac};

/// `PROBE_NUM` of RFC 5227: a single broadcast frame may be lost.
const PROBES: u32 = 3;

/// Asks the link of `ifindex`, whose address is `mac`, who has `ip`; the hardware address of the
/// first host that shows it has it, `None` if nobody does within `timeout`, over which three
/// probes are spread. No host's table of neighbours changes.
///
/// A host that merely probes for the same address at the same time is no holder: two nodes of a
/// farm may check the same virtual IP at once.
///
/// A holder of an IPv6 address answers to all nodes of the link, so that no multicast group has to
/// be joined for it.
///
/// # Errors
/// [`Error::System`]: no `CAP_NET_RAW`, or the link is down or gone.
pub async fn address_in_use(
    ifindex: u32,
    mac: Mac,
    ip: IpAddr,
    timeout: Duration,
) -> Result<Option<Mac>, Error> {
    let claims = Claims::open(ifindex)?;
    let start = Instant::now();
    let mut ticks = interval_at(start, (timeout / PROBES).max(Duration::from_millis(1)));
    let search = async {
        loop {
            tokio::select! {
                claim = claims.next() => match claim? {
                    claim if claim.ip == ip && claim.mac != mac => return Ok(claim.mac),
                    _other => {}
                },
                _ = ticks.tick() => claims.ask(mac, ip)?,
            }
        }
    };
    match timeout_at(start + timeout, search).await {
        Ok(holder) => holder.map(Some),
        Err(_elapsed) => Ok(None),
    }
}
