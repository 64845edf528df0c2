//! The witness against plain Linux machines that break every promise: what it must catch, it catches.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use farm_lab::witness::{
    BootTime, Case, Content, Expected, Heading, Kind, Outcome, RunningSyns, Segment, Side, Sighting,
    SynStream, Testimony, Verdict, Violation, Window, Witness, acceptances, judge, longest_gap, outcomes,
};
use farm_lab::{FIRST_VIP, FIRST_VIP6, Family, Lab, LabName, Network, Place, Spec, WEB_PORT, shell};

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
/// A hardware address that no machine sends from: the switch floods frames for it.
const NOBODY: &str = "02:fa:00:00:ff:ff";

/// What a node does with frames for [`NOBODY`]: they are for it, whatever its own hardware address is.
const TAKE: &str = "table netdev any { \n chain in { \n type filter hook ingress device eth0 priority 0 \n \
 ether daddr 02:fa:00:00:ff:ff meta pkttype set host \n } \n}\n";

/// Two nodes with web servers and a virtual IP; `client` knows where that is without asking.
struct Bench {
    lab: Lab,
    vip: IpAddr,
}

impl Bench {
    fn up(prefix: &str, vip: IpAddr) -> Result<Self> {
        let lab = Lab::build(Spec::new(LabName::unique(prefix)?, 2))?;
        lab.nodes().try_for_each(|node| lab.start_nginx(node).map(drop))?;
        lab.namespace(Place::Client)
            .ip(&format!("neigh replace {vip} dev eth0 lladdr {NOBODY} nud permanent\n"))?;
        Ok(Self { lab, vip })
    }

    /// The node serves the virtual IP without any filter, on frames for [`NOBODY`].
    fn serve(&self, node: Place) -> Result<()> {
        let namespace = self.lab.namespace(node);
        namespace
            .sysctl(&[("net/ipv4/conf/all/arp_announce", "2"), ("net/ipv4/conf/all/arp_ignore", "1")])?;
        shell::feed(namespace.command("nft")?.args(["-f", "-"]), TAKE)?;
        namespace.ip(&format!("addr add {} dev lo nodad\n", self.vip))
    }

    fn stop_serving(&self, node: Place) -> Result<()> {
        let namespace = self.lab.namespace(node);
        shell::run(namespace.command("nft")?.args(["delete", "table", "netdev", "any"]))?;
        namespace.ip(&format!("addr del {} dev lo\n", self.vip))
    }

    fn witness(&self) -> Result<Witness> {
        Witness::start(&self.lab, &[self.vip])
    }

    fn syns(&self, clients: usize, rate: u32) -> Result<RunningSyns> {
        let sources = SynStream::clients(Place::Client, Family::of(self.vip), clients);
        let service = SocketAddr::new(self.vip, WEB_PORT);
        SynStream { from: Place::Client, sources, service, rate }.start(&self.lab)
    }

    /// Lets `act` happen under a stream of SYNs: so many were answered before it and after it.
    fn under_load(
        &self,
        answered: usize,
        act: impl FnOnce() -> Result<()>,
    ) -> Result<(Testimony, Vec<Outcome>)> {
        let witness = self.witness()?;
        let syns = self.syns(400, 1_000)?;
        let answers = || acceptances(&witness.so_far(), &[self.vip]).len();
        let await_answers = |count: usize| {
            let enough = || Ok((answers() >= count).then_some(()));
            shell::await_value(&format!("{count} answers"), Duration::from_secs(20), enough)
        };
        await_answers(answered)?;
        act()?;
        await_answers(answers() + answered)?;
        let sent = syns.stop()?;
        let testimony = witness.stop()?;
        let outcomes = outcomes(&sent, &acceptances(&testimony.sightings, &[self.vip]));
        Ok((testimony, outcomes))
    }

    /// Plain machines have no filters.
    fn case(&self) -> Case {
        let unfiltered = [ONE, TWO].map(Window::always).to_vec();
        Case { vips: vec![self.vip], unfiltered, ..Case::default() }
    }
}

#[test]
fn a_single_server_is_upheld_and_every_attempt_is_accounted_for() -> Result<()> {
    single_server("single", FIRST_VIP)
}

#[test]
fn a_single_server_of_ipv6_is_upheld_and_every_attempt_is_accounted_for() -> Result<()> {
    single_server("single6", FIRST_VIP6)
}

fn single_server(prefix: &str, vip: IpAddr) -> Result<()> {
    let bench = Bench::up(prefix, vip)?;
    bench.serve(ONE)?;
    let (testimony, outcomes) = bench.under_load(300, || Ok(()))?;
    assert_eq!(judge(&testimony, &bench.case()), Verdict::Upheld);
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
    two_servers("both", FIRST_VIP)
}

#[test]
fn two_servers_of_one_ipv6_address_are_caught() -> Result<()> {
    two_servers("both6", FIRST_VIP6)
}

fn two_servers(prefix: &str, vip: IpAddr) -> Result<()> {
    let bench = Bench::up(prefix, vip)?;
    bench.serve(ONE)?;
    bench.serve(TWO)?;
    let (testimony, _) = bench.under_load(200, || Ok(()))?;
    let Verdict::Broken(found) = judge(&testimony, &bench.case()) else { panic!("not caught") };
    assert!(found.iter().all(|v| matches!(v, Violation::TwoAnswers(..))), "{:?}", found.first());
    // As if they had filters: the taps on the nodes tell the same.
    let Verdict::Broken(found) = judge(&testimony, &Case { unfiltered: Vec::new(), ..bench.case() }) else {
        panic!("not caught")
    };
    let passed = found.iter().filter(|v| matches!(v, Violation::PassedTwice(..))).count();
    assert!(passed >= 200, "{passed} of {}", found.len());
    Ok(())
}

#[test]
fn a_change_of_server_is_upheld_and_one_that_stays_open_is_caught() -> Result<()> {
    let bench = Bench::up("change", FIRST_VIP)?;
    bench.serve(ONE)?;
    let mut at = None;
    let (testimony, outcomes) = bench.under_load(400, || {
        bench.stop_serving(ONE)?;
        at = Some(BootTime::now());
        bench.serve(TWO)
    })?;
    let at = at.context("the change happened")?;
    // The switch floods: both nodes get every SYN, before and after.
    let expected = Expected { old: ONE, new: TWO, at, around: Duration::from_secs(60) };
    let closed = |node| Window { node, from: at, until: at + Duration::from_secs(60) };
    let change = |node| Case { changes: vec![expected], closed: vec![closed(node)], ..bench.case() };
    assert_eq!(judge(&testimony, &change(ONE)), Verdict::Upheld);
    let Verdict::Broken(found) = judge(&testimony, &change(TWO)) else { panic!("not caught") };
    assert!(found.iter().all(|v| matches!(v, Violation::AcceptedWhileClosed(a) if a.node == TWO)));
    assert!(outcomes.iter().any(|o| matches!(o.answer, Some((ONE, _)))));
    assert!(outcomes.iter().any(|o| matches!(o.answer, Some((TWO, _)))));
    Ok(())
}

#[test]
fn a_kernel_that_asks_with_the_virtual_ip_is_caught() -> Result<()> {
    let bench = Bench::up("arp", FIRST_VIP)?;
    bench.serve(ONE)?;
    bench.lab.namespace(ONE).sysctl(&[("net/ipv4/conf/all/arp_announce", "0")])?;
    asks_with_the_virtual_ip(&bench)
}

#[test]
fn a_kernel_that_solicits_with_the_virtual_ip_is_caught() -> Result<()> {
    let bench = Bench::up("solicit", FIRST_VIP6)?;
    bench.serve(ONE)?;
    // Linux solicits with addresses of the device only.
    bench.lab.namespace(ONE).ip(&format!("addr add {FIRST_VIP6} dev eth0 nodad\n"))?;
    asks_with_the_virtual_ip(&bench)
}

fn asks_with_the_virtual_ip(bench: &Bench) -> Result<()> {
    let forget = || bench.lab.namespace(ONE).ip("neigh flush dev eth0\n");
    let (testimony, _) = bench.under_load(100, forget)?;
    let Verdict::Broken(found) = judge(&testimony, &bench.case()) else { panic!("not caught") };
    assert!(found.iter().any(|v| matches!(v, Violation::NamesVirtualIp(ONE, ..))), "{:?}", found.first());
    Ok(())
}

#[test]
fn repeated_answers_of_a_kernel_count_once() -> Result<()> {
    let bench = Bench::up("repeat", FIRST_VIP)?;
    bench.serve(ONE)?;
    // The client's RST never arrives: the request socket lives on and its SYN-ACK is repeated after a second.
    let drop_resets = "table ip half { \n chain out { \n type filter hook output priority 0 \n tcp flags & rst == rst drop \n } \n}\n";
    shell::feed(bench.lab.namespace(Place::Client).command("nft")?.args(["-f", "-"]), drop_resets)?;
    let witness = bench.witness()?;
    let syns = bench.syns(400, 10)?;
    let opened = |seen: &[Sighting]| {
        acceptances(seen, &[FIRST_VIP]).iter().filter(|a| matches!(a.kind, Kind::Opened(_))).count()
    };
    let repeated = || Ok((syn_acks(&witness.so_far()) > opened(&witness.so_far())).then_some(()));
    shell::await_value("a repeated SYN-ACK", Duration::from_secs(20), repeated)?;
    let sent = syns.stop()?;
    let testimony = witness.stop()?;
    let opened = opened(&testimony.sightings);
    assert!(opened <= sent.len(), "{opened} acceptances of {} attempts", sent.len());
    assert_eq!(judge(&testimony, &bench.case()), Verdict::Upheld);
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
    let bench = Bench::up("unseen", FIRST_VIP)?;
    bench.serve(ONE)?;
    let witness = bench.witness()?;
    bench.lab.cut(ONE)?;
    let syns = bench.syns(50, 500)?;
    let limit = Duration::from_secs(10);
    let to_vip = |s: &Sighting| s.place == Place::Client && s.heading == Heading::Leaving;
    witness.await_sighting("a SYN of the client", limit, to_vip)?;
    syns.stop()?;
    let testimony = witness.stop()?;
    let own = Network::Lan.port(ONE);
    assert!(!testimony.sightings.iter().any(|s| s.place == ONE), "something passed {own}");
    assert!(matches!(judge(&testimony, &bench.case()), Verdict::Void(_)));
    Ok(())
}
