//! The machine itself: kernel, clock, scheduling, disk.

use std::time::Duration;

use crate::{Facts, Finding, Level, Looked};

type Check = fn(&Facts) -> Vec<Finding>;

/// What a filter needs; a witness has none.
pub(super) const OF_THE_FILTER: [Check; 4] = [
    |facts| vec![kernel(facts)],
    |facts| vec![filter(facts)],
    |facts| vec![capabilities(facts)],
    |facts| vec![clock(facts)],
];

/// All other checks of the machine.
pub(super) const CHECKS: [Check; 7] = [
    |facts| vec![clock_source(facts)],
    |facts| vec![slew(facts)],
    |facts| vec![realtime_share(facts)],
    |facts| vec![stall(facts)],
    |facts| vec![memory(facts)],
    |facts| vec![disk(facts)],
    |facts| vec![sync(facts)],
];

/// The oldest kernel with all that the filter calls.
const KERNEL: (u32, u32) = (5, 18);
/// A clock that is off by more than this many millionths is half way to what leases allow (10 %).
const PPM: f64 = 50_000.0;
/// Less of a core than this is not enough for leases and a failover on a busy machine.
const SHARE: u64 = 50;
/// What log, journal and modules need to go on.
const FREE: u64 = 1 << 30;
/// The lease of the fastest profile: what is not asked for yet is measured against it.
const FASTEST: Duration = Duration::from_millis(100);
/// Three renewals of a lease may be lost: what takes longer than a quarter of it costs some.
const SHARE_OF_LEASE: u32 = 4;

fn looked<T>(
    check: &'static str,
    resource: &str,
    found: &Looked<T>,
    remedy: &str,
    judge: impl FnOnce(&T) -> Finding,
) -> Finding {
    match found {
        Ok(found) => judge(found),
        Err(why) => Finding::unknown(check, resource, why, remedy),
    }
}

fn kernel(facts: &Facts) -> Finding {
    looked("kernel", "kernel", &facts.kernel, "uname -r", |release| {
        let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
        let (wanted, minor) = KERNEL;
        match (numbers.next(), numbers.next()) {
            (Some(a), Some(b)) if (a, b) >= KERNEL => {
                Finding::ok("kernel", "kernel", format!("Linux {release}"))
            }
            (Some(_), Some(_)) => {
                let fact = format!("Linux {release} is older than {wanted}.{minor}, which the filter needs");
                Finding::new("kernel", Level::Fault, "kernel", fact, "install a newer kernel and boot it")
            }
            _ => Finding::unknown("kernel", "kernel", &format!("{release:?} is no version"), "uname -r"),
        }
    })
}

fn filter(facts: &Facts) -> Finding {
    match &facts.filter {
        Ok(true) => Finding::ok("filter", "kernel", "the kernel takes the filter, as machine code"),
        Ok(false) => Finding::new(
            "filter",
            Level::Warning,
            "kernel",
            "the kernel takes the filter, but interprets it: every frame takes several times as long",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Err(why) => {
            let fact = format!("the kernel does not take the filter: {why}");
            let remedy = "run it as root, with a kernel that has CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS; dmesg may say more";
            Finding::new("filter", Level::Fault, "kernel", fact, remedy)
        }
    }
}

fn capabilities(facts: &Facts) -> Finding {
    let unit =
        "systemctl cat farmd: take CapabilityBoundingSet, User and NoNewPrivileges out of what was added";
    looked("capabilities", "process", &facts.missing, unit, |missing| {
        if missing.is_empty() {
            return Finding::ok("capabilities", "process", "it has all capabilities that it needs");
        }
        let fact = format!("it lacks {}", missing.join(", "));
        Finding::new("capabilities", Level::Fault, "process", fact, unit)
    })
}

fn clock(facts: &Facts) -> Finding {
    match &facts.clock {
        Ok(()) => Finding::ok("time_namespace", "clock", "filter and daemon read the same clock"),
        Err(why) => {
            let remedy = "systemctl start farmd, outside of any container that has a time namespace";
            Finding::new("time_namespace", Level::Fault, "clock", why, remedy)
        }
    }
}

fn clock_source(facts: &Facts) -> Finding {
    let show = "cat /sys/devices/system/clocksource/clocksource0/available_clocksource";
    looked("clock_source", "clock", &facts.clock_source, show, |source| match source.as_str() {
        "tsc" | "arch_sys_counter" => Finding::ok("clock_source", "clock", format!("clock source {source}")),
        "kvm-clock" | "hyperv" | "xen" => {
            let fact = format!(
                "clock source {source} may hide a pause of the virtual machine: who resumes may think that its lease goes on"
            );
            let remedy = "keep leases short (farmctl cluster profile fast or standard), or give the guest a stable TSC and boot it with clocksource=tsc";
            Finding::new("clock_source", Level::Warning, "clock", fact, remedy)
        }
        _ => {
            let fact = format!(
                "clock source {source} is slow to read, or was chosen because the kernel mistrusts a better one"
            );
            let remedy = "dmesg shows why (\"clocksource: Marking ... unstable\"); the firmware or the hypervisor may be to blame";
            Finding::new("clock_source", Level::Warning, "clock", fact, remedy)
        }
    })
}

fn slew(facts: &Facts) -> Finding {
    looked("clock_slew", "clock", &facts.slew, "adjtimex --print", |slew| {
        let faster = format!("the clock is steered by {:.0} ppm", slew.ppm);
        if slew.ppm.abs() > PPM {
            let remedy =
                "chronyc tracking: set maxslewrate 1000 in chrony.conf, and let the clock jump at boot only";
            let fact = format!("{faster}: leases allow for 100,000 on both sides together");
            return Finding::new("clock_slew", Level::Warning, "clock", fact, remedy);
        }
        if !slew.synchronised {
            let fact = format!(
                "{faster}, and nothing keeps it by an outer one: events of nodes cannot be put in order"
            );
            let remedy = "systemctl enable --now chrony (or systemd-timesyncd)";
            return Finding::new("clock_slew", Level::Advice, "clock", fact, remedy);
        }
        Finding::ok("clock_slew", "clock", faster)
    })
}

fn realtime_share(facts: &Facts) -> Finding {
    let set = "sysctl -w kernel.sched_rt_runtime_us=950000";
    looked("realtime_share", "scheduler", &facts.realtime_share, set, |share| {
        let fact = format!("real-time threads may have {share} % of a core");
        if *share >= SHARE {
            return Finding::ok("realtime_share", "scheduler", fact);
        }
        let fact = format!("{fact}: the lease thread may be held back on a busy machine");
        Finding::new("realtime_share", Level::Warning, "scheduler", fact, set)
    })
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// A time that must be short for the leases there are, or for the fastest ones.
fn bounded(
    check: &'static str,
    resource: &str,
    took: Duration,
    fact: String,
    facts: &Facts,
    remedy: &str,
) -> Finding {
    let lease = facts.lease.unwrap_or(FASTEST);
    if took * SHARE_OF_LEASE <= lease {
        return Finding::ok(check, resource, fact);
    }
    let (level, of) = match facts.lease {
        Some(_) => (Level::Warning, "the cluster's profile"),
        None => (Level::Advice, "the profile fast (cluster init proposes a slower one)"),
    };
    let fact = format!("{fact}; {of} has leases of {}, which wants less than a quarter of that", ms(lease));
    Finding::new(check, level, resource, fact, remedy)
}

fn stall(facts: &Facts) -> Finding {
    let may = "farmd needs CAP_SYS_NICE, or LimitRTPRIO=99 in its unit";
    looked("stalls", "scheduler", &facts.stall, may, |stall| {
        let fact = format!("a real-time thread woke up to {} late", ms(*stall));
        let remedy = "farmctl cluster profile standard (or virtual); a hypervisor that overcommits its cores is the usual cause";
        bounded("stalls", "scheduler", *stall, fact, facts, remedy)
    })
}

fn memory(facts: &Facts) -> Finding {
    let set = "LimitMEMLOCK=infinity in the unit of farmd, or CAP_IPC_LOCK";
    looked("memory_lock", "memory", &facts.lockable, set, |limit| match limit {
        None => Finding::ok("memory_lock", "memory", "the daemon may keep its memory from being paged out"),
        Some(bytes) => {
            let fact = format!("only {bytes} bytes may be locked: the lease thread may wait for the disk");
            Finding::new("memory_lock", Level::Warning, "memory", fact, set)
        }
    })
}

fn disk(facts: &Facts) -> Finding {
    let directory = facts.data_dir.display().to_string();
    let free = format!("df {directory}");
    looked("disk", &directory, &facts.disk, &free, |disk| {
        if let Some(kind) = disk.fleeting {
            let fact = format!("it is on {kind}, which does not keep what fsync promised");
            let remedy = "data_dir in farmd.toml must be on a local disk (ext4 or xfs)";
            return Finding::new("disk", Level::Fault, &directory, fact, remedy);
        }
        let fact = format!("{} MiB are free", disk.free >> 20);
        if disk.free < FREE {
            let fact = format!("only {fact}: when the disk is full the node stops to vote and to serve");
            return Finding::new("disk", Level::Warning, &directory, fact, free.clone());
        }
        Finding::ok("disk", &directory, fact)
    })
}

fn sync(facts: &Facts) -> Finding {
    let directory = facts.data_dir.display().to_string();
    let remedy =
        "move data_dir to a faster disk, or keep others from writing to this one; iostat -x shows who waits";
    looked("durable_writes", &directory, &facts.sync, remedy, |sync| {
        let fact =
            format!("a durable write takes {} in the middle, up to {}", ms(sync.median), ms(sync.slowest));
        bounded("durable_writes", &directory, sync.slowest, fact, facts, remedy)
    })
}
