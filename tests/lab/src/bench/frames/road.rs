//! The veth pair that the frames take, with the sender on one core and the receiver on another.

use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use farm_dataplane::bpf;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::super::idle::processor_time;
use super::source;
use crate::netns::NetNs;
use crate::process::Process;
use crate::shell;

/// Frames of one call, below 0.1 s: each call makes a pool of pages first.
const CALL: u32 = 1 << 18;
/// A thread that the kernel starts, and frames on their way, need microseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// The pair, both ends in one namespace.
pub(super) struct Road {
    namespace: NetNs,
    /// Where frames come out.
    pub(super) interface: String,
    pub(super) ifindex: u32,
    pub(super) mac: [u8; 6],
    sends: OwnedFd,
    sender: CpuSet,
    receiver: Process,
}

/// What was received in one go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Passed {
    pub(super) frames: u64,
    /// Processor time of the receiver.
    pub(super) busy: Duration,
    /// Time from the first frame to the last.
    pub(super) taken: Duration,
}

impl Passed {
    /// Millions of frames per second of processor time.
    pub(super) fn megaframes_per_core(&self) -> f64 {
        self.frames as f64 / self.busy.as_secs_f64() / 1e6
    }

    /// In per cent of a core.
    pub(super) fn busy(&self) -> f64 {
        100.0 * self.busy.as_secs_f64() / self.taken.as_secs_f64()
    }
}

impl Road {
    /// Lays it in `namespace`. GRO gives the receiving end a NAPI of its own, also without a program; a thread runs
    /// it, whose processor time is counted.
    pub(super) fn lay(namespace: NetNs) -> Result<Self> {
        // The name of the thread begins with that of the interface, and names of threads are seen by all.
        let (from, to) = (format!("f{}a", std::process::id()), format!("f{}b", std::process::id()));
        const MAC: [u8; 6] = [0x02, 0xfa, 0, 0, 0xff, 2];
        let mac = crate::topology::mac_text(MAC);
        namespace.ip(&format!(
            "link add {from} numtxqueues 1 numrxqueues 1 type veth peer name {to} address {mac} numtxqueues 1 \
             numrxqueues 1\nlink set {from} up\nlink set {to} up\n"
        ))?;
        shell::run(namespace.command("ethtool")?.args(["-K", &to, "gro", "on"]))?;
        run_threaded(&namespace, &to)?;
        let index = |name: &str| namespace.run(|| Ok(nix::net::if_::if_nametoindex(name)?));
        let (sender, receiving) = cores()?;
        let thread = || Ok(napi_thread(&to));
        let receiver = shell::await_value("the interface has a thread", LIMIT, thread)?;
        sched_setaffinity(Pid::from_raw(receiver.pid), &receiving).context("the receiver's core")?;
        let (sends, ifindex) = (source::program(index(&from)?)?, index(&to)?);
        Ok(Self { interface: to, ifindex, mac: MAC, sends, sender, receiver, namespace })
    }

    pub(super) fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// Sends as fast as a core can for `span`.
    pub(super) fn drive(&self, span: Duration) -> Result<Passed> {
        let frame = source::frame(self.mac);
        let (frames, busy) = (self.statistic("xdp_packets")?, processor_time(self.receiver)?);
        let taken = self.namespace.run(|| {
            sched_setaffinity(Pid::from_raw(0), &self.sender).context("the sender's core")?;
            let start = Instant::now();
            while start.elapsed() < span {
                bpf::run_live(&self.sends, &frame, CALL).context("live frames")?;
            }
            Ok(start.elapsed())
        })?;
        let frames = self.drained()? - frames;
        ensure!(frames > 0, "nothing was received");
        Ok(Passed { frames, busy: processor_time(self.receiver)?.saturating_sub(busy), taken })
    }

    /// What was received, once nothing is on its way any more.
    fn drained(&self) -> Result<u64> {
        let mut last = self.statistic("xdp_packets")?;
        shell::await_value("the last frame is received", LIMIT, || {
            let now = self.statistic("xdp_packets")?;
            Ok((std::mem::replace(&mut last, now) == now).then_some(now))
        })
    }

    /// A counter of the receiving end; `xdp_packets` counts all that its NAPI takes, with and without a program.
    pub(super) fn statistic(&self, name: &str) -> Result<u64> {
        let text = shell::run(self.namespace.command("ethtool")?.args(["-S", &self.interface]))?;
        let wanted = format!("rx_queue_0_{name}: ");
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&wanted));
        line.with_context(|| format!("no {wanted}in {text}"))?.parse().context(wanted)
    }
}

/// The attribute is seen where sysfs is mounted for the namespace: that is what `ip netns exec` is for.
fn run_threaded(namespace: &NetNs, interface: &str) -> Result<()> {
    let script = format!("echo 1 > /sys/class/net/{interface}/threaded");
    shell::run(Command::new("ip").args(["netns", "exec", namespace.name(), "sh", "-c", &script])).map(drop)
}

/// Two cores: one for the sender, one for the receiver.
fn cores() -> Result<(CpuSet, CpuSet)> {
    let ours = sched_getaffinity(Pid::from_raw(0))?;
    let cores: Vec<usize> = (0..CpuSet::count()).filter(|cpu| ours.is_set(*cpu) == Ok(true)).collect();
    ensure!(cores.len() >= 2, "sender and receiver need a core each");
    let alone = |cpu| -> Result<CpuSet> {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        Ok(set)
    };
    Ok((alone(cores[0])?, alone(cores[1])?))
}

/// The kernel's thread `napi/INTERFACE-ID`.
fn napi_thread(interface: &str) -> Option<Process> {
    let prefix = format!("napi/{interface}-");
    let all = std::fs::read_dir("/proc").ok()?.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    let comm = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    all.into_iter().find(|pid| comm(*pid).starts_with(&prefix)).and_then(|pid| Process::of(pid).ok())
}
