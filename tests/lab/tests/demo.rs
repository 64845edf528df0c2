//! The demo's load against plain Linux machines: what it reports is what they did.

use std::time::Duration;

use anyhow::Result;
use farm_lab::demo::{Load, Plan, Request, measure};
use farm_lab::{Lab, LabName, Place, Spec, shell};

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);

fn load_on(lab: &Lab, node: Place) -> Result<Load> {
    lab.start_nginx(node)?;
    Load::start(lab, Plan { rate: 500, ..Plan::new(node.address().into()) })
}

fn await_requests(
    load: &Load,
    from: Duration,
    wanted: usize,
    which: impl Fn(&Request) -> bool,
) -> Result<()> {
    let enough = || Ok((load.since(from).iter().filter(|r| which(r)).count() >= wanted).then_some(()));
    shell::await_value(&format!("{wanted} requests"), Duration::from_secs(20), enough)
}

#[test]
fn every_answer_is_put_down_to_who_gave_it() -> Result<()> {
    let lab = Lab::build(Spec::new(LabName::unique("load")?, 2))?;
    let load = load_on(&lab, TWO)?;
    await_requests(&load, Duration::ZERO, 2_000, |r| r.by == Some(TWO))?;
    let requests = load.since(Duration::ZERO);
    load.stop()?;
    let measured = measure(&requests, Duration::ZERO, &[TWO]);
    assert_eq!(measured.failed, 0);
    assert!(measured.fair && measured.recovered_after.is_some(), "{measured:?}");
    assert!(!measure(&requests, Duration::ZERO, &[ONE, TWO]).fair);
    Ok(())
}

#[test]
fn an_outage_is_seen_and_so_is_its_end() -> Result<()> {
    let lab = Lab::build(Spec::new(LabName::unique("outage")?, 1))?;
    let load = load_on(&lab, ONE)?;
    await_requests(&load, Duration::ZERO, 200, |r| r.by.is_some())?;
    let at = load.now();
    lab.silence(ONE)?;
    await_requests(&load, at, 100, |r| r.by.is_none())?;
    lab.heal(ONE)?;
    let healed = load.now();
    await_requests(&load, healed, 1_000, |r| r.by.is_some())?;
    let requests = load.since(at);
    load.stop()?;
    let measured = measure(&requests, at, &[ONE]);
    assert!(measured.failed >= 100, "{measured:?}");
    // The outage began with the first request after it and lasted at least until a request had timed out.
    assert!(measured.longest_gap >= farm_lab::demo::TIMEOUT, "{measured:?}");
    Ok(())
}
