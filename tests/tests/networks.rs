//! Several cluster networks, and where the daemons listen.

use anyhow::{Context, Result, ensure};
use farm_lab::topology::mac_text;
use farm_lab::witness::BootTime;
use farm_lab::{FIRST_VIP, Mode, Network, Place, Status, shell};
use farm_tests::farm::{Event, Farm, LIMIT};
use farm_tests::load::Load;

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
/// Nothing of the farm itself passes the first network at this node; clients do.
const DEAF: &str = "table inet deaf {
 chain input { type filter hook input priority 0; policy accept; iifname eth0 meta l4proto { tcp, udp } th dport 7601 drop; }
 chain output { type filter hook output priority 0; policy accept; oifname eth0 meta l4proto { tcp, udp } th dport 7601 drop; }
}
";

/// No lease message reaches this node: neither what others ask it, nor what they grant. All else does.
const UNGRANTED: &str = "table inet ungranted {
 chain input { type filter hook input priority 0; policy accept; udp dport 7601 drop; }
}
";

fn moves(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|e| e.kind == "buckets_moved" || e.kind == "node_silent").collect()
}

/// Waits until `node` reaches the others on the second network.
fn second_works(farm: &Farm, node: Place) -> Result<()> {
    for other in farm.others(node) {
        let host = other.host().context("it is a node")?;
        let address = Network::Second.address(host).to_string();
        let what = format!("{node} reaches {other} on the second network");
        shell::await_value(&what, LIMIT, || {
            let answered = farm.exec(node, "ping", &["-n", "-c", "1", "-W", "1", &address])?;
            Ok(answered.status.success().then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn the_loss_of_one_of_two_networks_moves_nothing() -> Result<()> {
    let farm = Farm::of("networks", 3, farm_lab::Spec::second_network)?;
    // What is judged are networks, not how busy this machine is: a node is missed after 300 ms here, not after 75.
    farm.farmctl(ALL[0], &["cluster", "profile", "standard"])?;
    let leader = farm.leader()?;
    let follower = *farm.others(leader).first().context("two follow")?;
    let load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&ALL)?;
    let known = farm.events(follower)?.len();
    // The second one of each in turn, then the first one of each.
    for node in [follower, leader] {
        farm.cut_from(node, Network::Second)?;
        load.await_everybody()?;
        load.await_everybody()?;
        farm.heal(node)?;
        // A carrier that is back takes a while to be believed; two networks at once are not to be lost here.
        second_works(&farm, node)?;
    }
    for node in [follower, leader] {
        shell::feed(farm.command(node, "nft")?.args(["-f", "-"]), DEAF)?;
        load.await_everybody()?;
        load.await_everybody()?;
        shell::run(farm.command(node, "nft")?.args(["delete", "table", "inet", "deaf"]))?;
    }
    farm.await_shared_by(&ALL)?;
    let events = farm.events(follower)?.split_off(known);
    ensure!(moves(&events).is_empty(), "nobody was missed and nothing moved: {events:?}");
    load.upheld(follower).map(drop)
}

#[test]
fn a_leader_that_leases_do_not_reach_neither_leads_nor_serves() -> Result<()> {
    let farm = Farm::up("ungranted", Mode::Directed)?;
    let victim = farm.leader()?;
    let survivors = farm.others(victim);
    let mut load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&ALL)?;
    let at = BootTime::now();
    shell::feed(farm.command(victim, "nft")?.args(["-f", "-"]), UNGRANTED)?;
    farm.await_shared_by(&survivors)?;
    farm.leader_among(&survivors)?;
    let told =
        |s: &Status| s.conditions.iter().any(|c| c.code == "node_idle" && c.resource == victim.to_string());
    farm.await_status(survivors[0], "the node without a lease is named", LIMIT, told)?;
    load.await_answers_of(&survivors)?;
    load.await_everybody()?;
    survivors.iter().for_each(|survivor| load.expect_change(victim, *survivor, at));
    shell::run(farm.command(victim, "nft")?.args(["delete", "table", "inet", "ungranted"]))?;
    farm.await_shared_by(&ALL)?;
    load.await_answers_of(&ALL)?;
    load.await_everybody()?;
    load.upheld(survivors[0]).map(drop)
}

#[test]
fn a_daemon_listens_on_its_own_addresses_only() -> Result<()> {
    let farm = Farm::of("listens", 3, farm_lab::Spec::second_network)?;
    for node in ALL {
        let host = node.host().context("it is a node")?;
        let own = [Network::Lan, Network::Second].map(|network| network.address(host).to_string());
        let listed = shell::run(farm.command(node, "ss")?.args(["-H", "-l", "-n", "-t", "-u", "-p"]))?;
        let farms: Vec<&str> = listed.lines().filter(|line| line.contains("farmd")).collect();
        ensure!(farms.len() >= 2 * own.len(), "leases, peers and clients on each network: {listed}");
        for line in farms {
            let local =
                line.split_whitespace().nth(4).and_then(|at| at.rsplit_once(':')).context("an address")?;
            // What the machine asks of itself comes from nowhere else.
            let from_itself = local == ("127.0.0.1", "9010");
            ensure!(
                from_itself || own.iter().any(|ip| ip == local.0),
                "{node} listens on {}: {line}",
                local.0
            );
        }
    }
    Ok(())
}

#[test]
fn a_stranger_with_the_virtual_ip_is_named_as_long_as_it_has_it() -> Result<()> {
    let farm = Farm::of("stranger", 2, |spec| spec)?;
    let known = farm.nodes().map(|node| Ok((node, farm.events(node)?.len()))).collect::<Result<Vec<_>>>()?;
    let address = format!("{FIRST_VIP}/32 dev eth0\n");
    farm.namespace(Place::Router).ip(&format!("addr add {address}"))?;
    // It announces nothing: whoever leads by then finds it by asking.
    let tells = || {
        let told = known.iter().map(|(node, known)| {
            let told = farm.events(*node)?.into_iter().skip(*known).find(|e| e.kind == "vip_duplicate");
            Ok(told.map(|told| (*node, told)))
        });
        Ok(told.collect::<Result<Vec<_>>>()?.into_iter().flatten().next())
    };
    let (leader, told) = shell::await_value("somebody reports vip_duplicate", LIMIT, tells)?;
    let stranger = mac_text(Place::Router.mac(Network::Lan).context("it is on the link")?);
    ensure!(told.resource == FIRST_VIP.to_string() && told.text.contains(&stranger), "{told:?}");
    let named = |s: &Status| s.conditions.iter().any(|c| c.code == "vip_duplicate");
    farm.await_status(leader, "the stranger is named", LIMIT, named)?;
    farm.namespace(Place::Router).ip(&format!("addr del {address}"))?;
    farm.await_status(leader, "the stranger is gone", LIMIT, |s| !named(s)).map(drop)
}
