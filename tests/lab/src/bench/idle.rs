//! What a daemon costs while nothing happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::figure::Figure;
use super::group::Group;
use crate::lab::Lab;
use crate::process::Process;

/// Name of the group.
pub(super) const NAME: &str = "idle";
/// Over which time the processor time is counted.
const SPAN: Duration = Duration::from_secs(20);

/// Processor time and memory of every daemon, one sample per node.
pub(super) fn measure(lab: &Lab) -> Result<Vec<Figure>> {
    let daemons =
        lab.nodes().map(|node| lab.farmd(node)?.with_context(|| format!("farmd does not run on {node}")));
    let daemons: Vec<Process> = daemons.collect::<Result<_>>()?;
    let (start, before) = (Instant::now(), times(&daemons)?);
    std::thread::sleep(SPAN);
    let (taken, after) = (start.elapsed(), times(&daemons)?);
    let share = |(before, after): (&Duration, &Duration)| {
        Some(100.0 * after.saturating_sub(*before).as_secs_f64() / taken.as_secs_f64())
    };
    let cpu: Vec<Option<f64>> = before.iter().zip(&after).map(share).collect();
    let memory = daemons.iter().map(|d| resident(*d).map(Some)).collect::<Result<Vec<_>>>()?;
    let what = format!("processor time of farmd over {} s, 100 % = one core; per node", SPAN.as_secs());
    Ok(vec![
        Figure::of(Group::Idle, "cpu", what, "%", &cpu),
        Figure::of(Group::Idle, "memory", "resident set of farmd; per node", "MiB", &memory),
    ])
}

fn times(daemons: &[Process]) -> Result<Vec<Duration>> {
    daemons.iter().map(|daemon| processor_time(*daemon)).collect()
}

/// Of all threads that live, in ns: the first field of `schedstat`. Who is asked ends no threads meanwhile.
pub(super) fn processor_time(daemon: Process) -> Result<Duration> {
    let tasks = format!("/proc/{}/task", daemon.pid);
    let mut total = 0;
    for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// Resident set in MiB.
fn resident(daemon: Process) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
    Ok(kib / 1024.0)
}
