//! The witness against plain Linux machines that break every promise: what it must catch, it catches.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result};
use farm_lab::witness::{
    BootTime, Case, Content, Expected, Heading, Kind, Outcome, Segment, Side, Sighting, SynStream, Testimony,
    Verdict, Violation, Window, Witness, acceptances, judge, longest_gap, outcomes,
};
use farm_lab::{FIRST_VIP, Lab, LabName, Network, Place, Spec, shell};

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const SERVICE: SocketAddrV4 = SocketAddrV4::new(FIRST_VIP, 80);
/// A hardware address that no machine sends from: the switch floods frames for it.
const NOBODY: &str = "02:fa:00:00:ff:ff";

/// Two nodes with web servers; `client` knows where the virtual IP is without asking.
fn lab(prefix: &str) -> Result<Lab> {
    let lab = Lab::build(Spec::new(LabName::unique(prefix)?, 2))?;
    lab.nodes().try_for_each(|node| lab.start_nginx(node).map(drop))?;
    point_client_at(&lab, NOBODY)?;
    Ok(lab)
}

fn point_client_at(lab: &Lab, mac: &str) -> Result<()> {
    lab.namespace(Place::Client)
        .ip(&format!("neigh replace {FIRST_VIP} dev eth0 lladdr {mac} nud permanent\n"))
}

/// The node serves the virtual IP without any filter, on frames for [`NOBODY`].
fn serve(lab: &Lab, node: Place) -> Result<()> {
    let batch = format!(
        "addr add {FIRST_VIP}/32 dev lo\nlink add link eth0 name any0 address {NOBODY} type macvlan mode bridge\n\
         link set dev any0 arp off\nlink set dev any0 up\n"
    );
    lab.namespace(node).sysctl(&[
        ("net/ipv4/conf/all/arp_announce", "2"),
        ("net/ipv4/conf/all/arp_ignore", "1"),
        // The new device must not announce itself: the switch would learn where it is and stop flooding.
        ("net/ipv6/conf/default/disable_ipv6", "1"),
    ])?;
    lab.namespace(node).ip(&batch)
}

fn stop_serving(lab: &Lab, node: Place) -> Result<()> {
    lab.namespace(node).ip(&format!("link del dev any0\naddr del {FIRST_VIP}/32 dev lo\n"))
}

/// Lets `act` happen under a stream of SYNs: so many were answered before it and after it.
fn under_load(
    lab: &Lab,
    answered: usize,
    act: impl FnOnce() -> Result<()>,
) -> Result<(Testimony, Vec<Outcome>)> {
    let witness = Witness::start(lab, &[FIRST_VIP])?;
    let sources = SynStream::clients(Place::Client, 400);
    let syns = SynStream { from: Place::Client, sources, service: SERVICE, rate: 1_000 }.start(lab)?;
    let await_answers = |count: usize| {
        let enough = || Ok((acceptances(&witness.so_far(), &[FIRST_VIP]).len() >= count).then_some(()));
        shell::await_value(&format!("{count} answers"), Duration::from_secs(20), enough)
    };
    await_answers(answered)?;
    act()?;
    let before = acceptances(&witness.so_far(), &[FIRST_VIP]).len();
    await_answers(before + answered)?;
    let sent = syns.stop()?;
    let testimony = witness.stop()?;
    let outcomes = outcomes(&sent, &acceptances(&testimony.sightings, &[FIRST_VIP]));
    Ok((testimony, outcomes))
}

/// Plain machines have no filters.
fn case() -> Case {
    let unfiltered = [ONE, TWO].map(Window::always).to_vec();
    Case { vips: vec![FIRST_VIP], unfiltered, ..Case::default() }
}

#[test]
fn a_single_server_is_upheld_and_every_attempt_is_accounted_for() -> Result<()> {
    let lab = lab("single")?;
    serve(&lab, ONE)?;
    let (testimony, outcomes) = under_load(&lab, 300, || Ok(()))?;
    assert_eq!(judge(&testimony, &case()), Verdict::Upheld);
    // The last attempts may have been on their way when the stream ended.
    let settled = &outcomes[..outcomes.len() - 20];
    assert!(settled.iter().all(|o| matches!(o.answer, Some((ONE, _)))), "{settled:?}");
    assert!(longest_gap(settled) < Duration::from_millis(500), "{:?}", longest_gap(settled));
    let passed =
        testimony.sightings.iter().filter(|s| s.side == Side::Machine && s.heading == Heading::Arriving);
    assert!(passed.count() >= settled.len(), "the tap on the node saw them too");
    Ok(())
}

#[test]
fn two_servers_of_one_address_are_caught() -> Result<()> {
    let lab = lab("both")?;
    serve(&lab, ONE)?;
    serve(&lab, TWO)?;
    let (testimony, _) = under_load(&lab, 200, || Ok(()))?;
    let Verdict::Broken(found) = judge(&testimony, &case()) else { panic!("not caught") };
    assert!(found.iter().all(|v| matches!(v, Violation::TwoAnswers(..))), "{:?}", found.first());
    // As if they had filters: the taps on the nodes tell the same.
    let Verdict::Broken(found) = judge(&testimony, &Case { unfiltered: Vec::new(), ..case() }) else {
        panic!("not caught")
    };
    let passed = found.iter().filter(|v| matches!(v, Violation::PassedTwice(..))).count();
    assert!(passed >= 200, "{passed} of {}", found.len());
    Ok(())
}

#[test]
fn a_change_of_server_is_upheld_and_one_that_stays_open_is_caught() -> Result<()> {
    let lab = lab("change")?;
    serve(&lab, ONE)?;
    let mut at = None;
    let (testimony, outcomes) = under_load(&lab, 400, || {
        stop_serving(&lab, ONE)?;
        at = Some(BootTime::now());
        serve(&lab, TWO)
    })?;
    let at = at.context("the change happened")?;
    // The switch floods: both nodes get every SYN, before and after.
    let expected = Expected { old: ONE, new: TWO, at, around: Duration::from_secs(60) };
    let closed = |node| Window { node, from: at, until: at + Duration::from_secs(60) };
    let change = |node| Case { changes: vec![expected], closed: vec![closed(node)], ..case() };
    assert_eq!(judge(&testimony, &change(ONE)), Verdict::Upheld);
    let Verdict::Broken(found) = judge(&testimony, &change(TWO)) else { panic!("not caught") };
    assert!(found.iter().all(|v| matches!(v, Violation::AcceptedWhileClosed(a) if a.node == TWO)));
    assert!(outcomes.iter().any(|o| matches!(o.answer, Some((ONE, _)))));
    assert!(outcomes.iter().any(|o| matches!(o.answer, Some((TWO, _)))));
    Ok(())
}

#[test]
fn a_kernel_that_asks_with_the_virtual_ip_is_caught() -> Result<()> {
    let lab = lab("arp")?;
    serve(&lab, ONE)?;
    lab.namespace(ONE).sysctl(&[("net/ipv4/conf/all/arp_announce", "0")])?;
    let (testimony, _) = under_load(&lab, 100, || lab.namespace(ONE).ip("neigh flush dev eth0\n"))?;
    let Verdict::Broken(found) = judge(&testimony, &case()) else { panic!("not caught") };
    assert!(found.iter().any(|v| matches!(v, Violation::ArpNamesVirtualIp(ONE, ..))), "{:?}", found.first());
    Ok(())
}

#[test]
fn repeated_answers_of_a_kernel_count_once() -> Result<()> {
    let lab = lab("repeat")?;
    serve(&lab, ONE)?;
    // The client's RST never arrives: the request socket lives on and its SYN-ACK is repeated after a second.
    let drop_resets = "table ip half { \n chain out { \n type filter hook output priority 0 \n tcp flags & rst == rst drop \n } \n}\n";
    shell::feed(lab.namespace(Place::Client).command("nft")?.args(["-f", "-"]), drop_resets)?;
    let witness = Witness::start(&lab, &[FIRST_VIP])?;
    let sources = SynStream::clients(Place::Client, 400);
    let syns = SynStream { from: Place::Client, sources, service: SERVICE, rate: 10 }.start(&lab)?;
    let opened = |seen: &[Sighting]| {
        acceptances(seen, &[FIRST_VIP]).iter().filter(|a| matches!(a.kind, Kind::Opened(_))).count()
    };
    let repeated = || Ok((syn_acks(&witness.so_far()) > opened(&witness.so_far())).then_some(()));
    shell::await_value("a repeated SYN-ACK", Duration::from_secs(20), repeated)?;
    let sent = syns.stop()?;
    let testimony = witness.stop()?;
    let opened = opened(&testimony.sightings);
    assert!(opened <= sent.len(), "{opened} acceptances of {} attempts", sent.len());
    assert_eq!(judge(&testimony, &case()), Verdict::Upheld);
    Ok(())
}

fn syn_acks(seen: &[Sighting]) -> usize {
    let leaving =
        seen.iter().filter(|s| s.side == Side::Cable && s.heading == Heading::Leaving && s.place == ONE);
    let both = Segment::SYN | Segment::ACK;
    leaving.filter(|s| matches!(s.frame.content, Content::Tcp(segment) if segment.is(both))).count()
}

#[test]
fn frames_of_a_cut_node_are_not_seen() -> Result<()> {
    let lab = lab("unseen")?;
    serve(&lab, ONE)?;
    let witness = Witness::start(&lab, &[FIRST_VIP])?;
    lab.cut(ONE)?;
    let sources = SynStream::clients(Place::Client, 50);
    let syns = SynStream { from: Place::Client, sources, service: SERVICE, rate: 500 }.start(&lab)?;
    let limit = Duration::from_secs(10);
    let to_vip = |s: &Sighting| s.place == Place::Client && s.heading == Heading::Leaving;
    witness.await_sighting("a SYN of the client", limit, to_vip)?;
    syns.stop()?;
    let testimony = witness.stop()?;
    let own = Network::Lan.port(ONE);
    assert!(!testimony.sightings.iter().any(|s| s.place == ONE), "something passed {own}");
    assert!(matches!(judge(&testimony, &case()), Verdict::Void(_)));
    Ok(())
}
