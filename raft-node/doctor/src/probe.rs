//! Looks at the machine and at the way to the other nodes, and changes nothing.

mod clock;
mod machine;
mod network;

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

pub use network::{Peer, carried, port_open};

use crate::{Facts, Link, Looked, Pair, Plan, measure};

/// How long stalls are looked for.
const WATCH: Duration = Duration::from_secs(1);
/// Durable writes that are tried.
const WRITES: usize = 20;
/// No probe of the machine takes longer, unless the machine hangs.
const LIMIT: Duration = Duration::from_secs(5);

/// Everything about this machine; what is known of the others is added to it.
pub async fn look(plan: &Plan, pairs: Vec<Pair>) -> Facts {
    let directory = plan.data_dir.clone();
    let priority = plan.priority;
    let (stall, sync, links, firewall, mtus, (filter, clock)) = tokio::join!(
        within("the scheduler", move || measure::longest_realtime_stall(WATCH, priority).map_err(words)),
        within("the disk", move || {
            measure::durable_writes(machine::existing(&directory), WRITES).map_err(words)
        }),
        links(plan),
        network::firewall(plan),
        network::mtus(plan),
        own_filter(),
    );
    Facts {
        kernel: machine::kernel(),
        filter,
        clock,
        clock_source: clock::source(),
        slew: clock::slew(),
        stall,
        realtime_share: machine::realtime_share(),
        missing: machine::missing_capabilities(),
        lockable: machine::lockable(),
        disk: machine::disk(&plan.data_dir),
        sync,
        mtus,
        links,
        firewall,
        pairs,
        lease: plan.lease,
        serves: plan.serves,
        data_dir: plan.data_dir.clone(),
        mode: plan.mode,
    }
}

fn words(error: std::io::Error) -> String {
    error.to_string()
}

/// What blocks, in a thread of its own. Where the machine hangs the thread stays until it does no more.
async fn within<T: Send + 'static>(
    whom: &str,
    work: impl FnOnce() -> Looked<T> + Send + 'static,
) -> Looked<T> {
    match timeout(LIMIT, spawn_blocking(work)).await {
        Ok(Ok(looked)) => looked,
        Ok(Err(_)) => Err("the probe failed".into()),
        Err(_) => Err(format!("{whom} did not answer within {} s", LIMIT.as_secs())),
    }
}

/// Whether the kernel takes the filter, and reads the same clock.
async fn own_filter() -> (Result<bool, String>, Result<(), String>) {
    let filter = || farm_dataplane::attach::rehearse().map(|r| r.jitted).map_err(|e| e.to_string());
    let clock = || farm_dataplane::clock::refuse_time_namespace().map_err(|e| e.to_string());
    tokio::join!(within("the kernel", filter), within("the kernel", clock))
}

async fn links(plan: &Plan) -> Vec<Link> {
    let mut links = Vec::new();
    for (device, filter) in &plan.links {
        let (name, pins, mode) = (filter.clone(), plan.pin_dir.clone(), plan.mode);
        let inspect =
            move || farm_dataplane::attach::inspect(&pins, &name, mode).map_err(|error| error.to_string());
        let inspected = within("the kernel", inspect).await;
        let arp = farm_host::sysctl::in_force(device).map_err(|error| error.to_string());
        links.push(Link { device: device.clone(), filter: filter.clone(), inspected, arp });
    }
    links
}
