//! What people and programs read, compared with what was agreed.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{counters, green, red};
use farm_proto::v1;
use farmctl::args::parse_cure;
use farmctl::output::Output;
use farmctl::render::{self, Names};
use farmctl::values::ClientAddress;
use farmctl::view;
use serde_json::Value;

const GREEN: &str = "\
cluster prod   profile fast   epoch 42   leader node2   term 7   generation 1   (as node1 knows it)

NODE   STATE  ROLE    RAFT    LEASE       APPLIED  FILTER
node1  ready  server  voter   87 ms left  42       ok
node2  ready  server  leader  -           42       -
node3  ready  server  voter   -           42       -

MODULE  SERVICE             CRITERION       MODE      SHARES                                 CHANGES
web     192.0.2.100:80/tcp  source-address  directed  node1 33.3%, node2 33.3%, node3 33.3%  none
        192.0.2.100:53/udp  source-address  directed

All green.
";

const RED: &str = "\
cluster prod   profile fast   epoch 42   leader node2   term 7   generation 1   (as node1 knows it)

NODE   STATE                 ROLE    RAFT    LEASE       APPLIED        FILTER
node1  no filter             server  voter   87 ms left  42             not in place
node2  ready                 server  leader  -           42             -
node3  silent for 1s 234ms   server  voter   -           41 (1 behind)  -

MODULE  SERVICE             CRITERION       MODE      SHARES                                                          CHANGES
web     192.0.2.100:80/tcp  source-address  directed  node1 33.3%, node2 33.3%, node3 8.9% (weight 0), nobody 24.4%  1000 buckets, 12 sockets draining
        192.0.2.100:53/udp  source-address  directed

node3: node_silent for 1s 234ms
  cause: node3 does not renew its lease
  next: farmctl events
node1: no filter
  cause: its filter or guard is not in place: it accepts nothing
  next: farmctl events
";

/// Widths of columns are the table's business.
fn squeezed(text: &str) -> String {
    text.lines().map(|l| format!("{}\n", l.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

#[test]
fn a_green_cluster_is_one_screen() {
    assert_eq!(render::status(&green(), false), GREEN);
}

#[test]
fn what_is_not_green_ends_with_what_to_do() {
    assert_eq!(squeezed(&render::status(&red(), false)), squeezed(RED));
}

const SCREEN: &str = "\
cluster prod: RED, 2 things are not green leader node2 epoch 42 (as node1 knows it)

NODE STATE RAFT APPLICATIONS
node1 no filter voter -
node2 ready leader -
node3 silent for 1s 234ms voter -

MODULE STATE SERVICES SHARES
web 24.4% served by nobody 192.0.2.100:80/tcp and 1 more node1 33.3%, node2 33.3%, node3 8.9%

red node3: node_silent for 1s 234ms: node3 does not renew its lease
red node1: no filter: its filter or guard is not in place: it accepts nothing
Next: farmctl events
";

#[test]
fn the_screen_says_what_is_wrong_and_what_to_do() {
    assert_eq!(squeezed(&render::screen(&red(), false)), SCREEN);
    let good = render::screen(&green(), false);
    assert!(
        good.starts_with("cluster prod: GREEN ") && good.ends_with("\n\nNext: nothing to do\n"),
        "{good}"
    );
    let mut passing = green();
    passing.conditions = vec![v1::Condition { passing: true, ..red().conditions[0].clone() }];
    let passing = render::screen(&passing, false);
    assert!(
        passing.contains("YELLOW, one thing is on its way") && passing.contains("yellow node3"),
        "{passing}"
    );
}

#[test]
fn an_application_that_is_not_up_shows_with_its_node() {
    let mut status = green();
    let life = |node, place: v1::Place, life: v1::LifeStatus| v1::ModuleLife {
        module: "web".into(),
        node,
        place: place.into(),
        status: life.into(),
        ..v1::ModuleLife::default()
    };
    let (up, ready) = (v1::Place::Up, v1::LifeStatus::Ready);
    let waits = life(3, v1::Place::Wait, v1::LifeStatus::NotReady);
    status.modules[0].lives = vec![life(1, up, ready), life(2, up, v1::LifeStatus::Transient), waits];
    let definition = v1::ModuleDefinition { application: true, ..v1::ModuleDefinition::default() };
    status.modules[0].module.as_mut().unwrap().definition = Some(definition);
    let screen = squeezed(&render::screen(&status, false));
    for line in
        ["node1 ready voter 1 up\n", "node2 ready leader web on its way\n", "node3 ready voter web waits\n"]
    {
        assert!(screen.contains(line), "{screen}");
    }
    assert!(screen.contains("web up on 1 of 3 192.0.2.100:80/tcp"), "{screen}");
}

#[test]
fn the_largest_farm_fits_a_terminal_and_the_worst_comes_first() {
    let mut status = green();
    status.nodes = (1..=31).map(|id| common::node(id, &format!("node{id}"))).collect();
    status.nodes[29].heard = false;
    status.modules = (0..32).map(|_| status.modules[0].clone()).collect();
    status.modules[30].shares.clear();
    let condition = |n: usize| v1::Condition {
        resource: format!("thing{n}"),
        passing: n < 35,
        ..red().conditions[0].clone()
    };
    status.conditions = (0..40).map(condition).collect();
    let screen = render::screen(&status, false);
    assert_eq!(screen.lines().count(), 24, "{screen}");
    assert!(screen.lines().last().unwrap().starts_with("Next: farmctl"));
    for worst in ["node30", "served by nobody", "red thing35", "36 more: farmctl cluster status", "all green"]
    {
        assert!(screen.contains(worst), "no {worst}: {screen}");
    }
}

#[test]
fn colour_only_repeats_the_text() {
    let coloured = render::status(&red(), true);
    assert!(coloured.contains("\x1b["));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').expect("a colour ends with m").1;
    }
    plain.push_str(rest);
    assert_eq!(squeezed(&plain), squeezed(RED));
}

#[test]
fn states_have_words() {
    let word = |change: fn(&mut v1::NodeStatus)| {
        let mut status = green();
        change(&mut status.nodes[0]);
        render::changes(None, &status).into_iter().find(|l| l.contains("node node1")).unwrap()
    };
    assert!(word(|_| ()).ends_with("ready"));
    assert!(word(|n| n.lease_left_ms = 0).ends_with("closed"));
    assert!(word(|n| n.applied = 41).ends_with("behind"));
    assert!(word(|n| n.heard = false).ends_with("silent"));
    assert!(word(|n| n.filter_ok = Some(false)).ends_with("no filter"));
    assert!(word(|n| n.node.as_mut().unwrap().phase = v1::NodePhase::Away.into()).ends_with("away"));
    assert!(word(|n| n.node.as_mut().unwrap().phase = v1::NodePhase::Leaving.into()).ends_with("leaving"));
    let witness = word(|n| {
        n.node.as_mut().unwrap().role = v1::NodeRole::Witness.into();
        (n.filter_ok, n.applied) = (Some(false), 0);
    });
    assert!(witness.ends_with("ready"));
}

#[test]
fn a_daemon_without_a_cluster_says_what_to_do() {
    let text = render::status(&v1::StatusResponse::default(), false);
    assert!(text.contains("belongs to no cluster") && text.contains("farmctl cluster init"));
    assert!(!text.contains("All green"));
}

#[test]
fn node_list_shows_addresses() {
    let list = render::node_list(&green(), false);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines[0], "NODE   ID  STATE  ROLE    RAFT    ROOM  ADDRESSES");
    assert_eq!(lines[2], "node2  2   ready  server  leader  -     lan=192.0.2.2");
}

#[test]
fn service_list_has_one_line_per_service() {
    let services = view::Services::from(&green());
    assert_eq!(
        render::services(&green(), &services),
        "MODULE  SERVICE             CRITERION       MODE\n\
         web     192.0.2.100:80/tcp  source-address  directed\n\
         web     192.0.2.100:53/udp  source-address  directed\n"
    );
    assert!(
        render::services(&green(), &view::Services { services: Vec::new() }).contains("farmctl service add")
    );
}

#[test]
fn changes_are_one_line_each_and_silent_when_nothing_changed() {
    assert_eq!(render::changes(Some(&green()), &green()), Vec::<String>::new());
    let mut later = green();
    (later.epoch, later.leader, later.commit_index) = (43, 1, 120);
    later.nodes.iter_mut().for_each(|n| n.applied = 43);
    assert_eq!(render::changes(Some(&green()), &later), ["epoch 43  leader: node1 (was node2)"]);
    let gone = render::changes(Some(&red()), &green());
    assert!(gone.contains(&"epoch 42  condition node3 node_silent: gone".to_owned()), "{gone:?}");
}

fn explained(agree: bool) -> v1::ExplainResponse {
    v1::ExplainResponse {
        module: "web".into(),
        bucket: 3123,
        owner: 2,
        previous: 1,
        phase: v1::Phase::Activate.into(),
        epoch: 42,
        decided: Some("accept_owner".into()),
        program: Some(if agree { "accept_owner" } else { "not_owner" }.into()),
        agree: Some(agree),
        why: "the bucket is node2's".into(),
        answered_by: 2,
    }
}

#[test]
fn a_service_says_its_vlan() {
    let service = |vip: &str, vlan: &str| v1::Service {
        vip: vip.into(),
        protocol: v1::Protocol::Tcp.into(),
        port: 80,
        criterion: v1::Criterion::SourceAddress.into(),
        vlan: vlan.into(),
    };
    assert_eq!(render::service(&service("192.0.2.100", "30")), "192.0.2.100:80/tcp vlan 30");
    assert_eq!(render::service(&service("2001:db8::1", "")), "[2001:db8::1]:80/tcp");
}

#[test]
fn explain_names_owner_and_both_verdicts() {
    let client: ClientAddress = "192.0.2.7:4711".parse().unwrap();
    let service = "192.0.2.100:80/tcp";
    let names = Names::of(&green());
    assert_eq!(
        render::explain(&client, service, &explained(true), &names),
        "client 192.0.2.7 port 4711 -> 192.0.2.100:80/tcp, module web\n  bucket   3123\n  owner    node2\n  \
         previous node1\n  step     activate\n  epoch    42\n  why      the bucket is node2's\n\
         on node2:\n  program  accept_owner\n  function accept_owner\nthey agree\n"
    );
    let disagree = render::explain(&client, service, &explained(false), &Names::default());
    assert!(disagree.contains("DISAGREE") && disagree.contains("owner    node 2"), "{disagree}");
    let unasked = v1::ExplainResponse { decided: None, program: None, agree: None, ..explained(true) };
    let unasked = render::explain(&client, service, &unasked, &names);
    assert!(
        unasked.ends_with("on node2:\n  the loaded program was not asked: no filter on this node\n"),
        "{unasked}"
    );
}

#[test]
fn counters_are_a_table_of_what_occurred() {
    assert_eq!(
        render::counters(&counters(), &Names::of(&green())),
        "on node1, since its filter was attached:\n\
         VERDICT  REASON         PACKETS  MEANING\n\
         accept   accept_owner   11573    accepted: this node owns the bucket\n\
         drop     lease_expired  7        dropped: no valid lease\n"
    );
    let none = render::counters(&v1::CountersResponse::default(), &Names::default());
    assert!(none.contains("No filter on this node"), "{none}");
}

/// Every text that may end with next steps.
fn texts_with_next_steps() -> Vec<String> {
    let (client, service) = ("192.0.2.7:4711".parse().unwrap(), "192.0.2.100:80/tcp");
    let mut texts = vec![
        render::status(&v1::StatusResponse::default(), false),
        render::services(&green(), &view::Services { services: Vec::new() }),
        render::init("prod", &v1::InitResponse::default()),
        render::join(&v1::JoinClusterResponse::default()),
        render::explain(&client, service, &explained(false), &Names::default()),
        render::counters(&v1::CountersResponse::default(), &Names::default()),
        render::status(&red(), false),
    ];
    let changes: [fn(&mut v1::NodeStatus); 6] = [
        |n| n.lease_left_ms = 0,
        |n| n.applied = 41,
        |n| n.heard = false,
        |n| n.filter_ok = Some(false),
        |n| n.node.as_mut().unwrap().phase = v1::NodePhase::Away.into(),
        |n| n.node.as_mut().unwrap().phase = v1::NodePhase::Leaving.into(),
    ];
    texts.extend(changes.map(|change| {
        let mut status = green();
        change(&mut status.nodes[0]);
        render::status(&status, false)
    }));
    texts
}

#[test]
fn a_next_step_is_a_command_and_nothing_else() {
    for text in texts_with_next_steps() {
        let steps: Vec<&str> = text.lines().filter_map(|l| l.trim_start().strip_prefix("next: ")).collect();
        assert!(!steps.is_empty(), "{text}");
        steps.iter().for_each(|step| parse_cure(step).unwrap());
    }
}

fn event() -> v1::Event {
    v1::Event {
        id: "n1-7".into(),
        time_unix_ms: 1_700_000_000_123,
        node: 1,
        kind: "leader".into(),
        text: "node2 leads".into(),
        cause: "n2-3".into(),
        index: 9,
        epoch: 42,
        resource: "cluster".into(),
        clock_ahead_ms: -900,
    }
}

#[test]
fn an_event_is_one_line_with_its_cause() {
    assert_eq!(
        render::event(&event(), &Names::of(&green())),
        "2023-11-14T22:13:20.123Z node1 leader: node2 leads [n1-7 <- n2-3]"
    );
    let off =
        |clock_ahead_ms| render::happened(&v1::Event { clock_ahead_ms, ..event() }, &Names::of(&green()));
    assert_eq!(off(900), "2023-11-14T22:13:20.123Z node1 node2 leads");
    assert_eq!(off(3_600_040), "2023-11-14T22:13:20.123Z node1 (clock +3600.0 s) node2 leads");
    assert_eq!(off(-1_250), "2023-11-14T22:13:20.123Z node1 (clock -1.2 s) node2 leads");
}

fn json(value: &impl serde::Serialize) -> Value {
    let mut text = Vec::new();
    Output::plain(&mut text, true).json(value).unwrap();
    assert_eq!(text.iter().filter(|b| **b == b'\n').count(), 1, "one object per line");
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn json_of_a_status_is_as_documented() {
    let status = json(&view::Status::from(&red()));
    assert_eq!(status["schema"], 1);
    assert_eq!(status["cluster"], "ab".repeat(16));
    assert_eq!(status["profile"], "fast");
    assert_eq!(status["generation"]["nonce"], "ffffffffffffffff");
    assert_eq!(status["nodes"][2]["node"]["name"], "node3");
    assert_eq!(status["nodes"][2]["node"]["links"][0]["mac"], "02000000000a");
    assert_eq!(status["nodes"][2]["heard"], false);
    assert_eq!(status["modules"][0]["module"]["services"][1]["protocol"], "udp");
    assert_eq!(status["modules"][0]["module"]["vips"][0]["mode"], "directed");
    assert_eq!(status["modules"][0]["shares"][2]["buckets"], 365);
    assert_eq!(status["conditions"][0]["next"], "farmctl events");
    let list = json(&view::Services::from(&green()));
    assert_eq!(list["services"][0]["module"], "web");
    assert_eq!(list["services"][0]["vip"], "192.0.2.100");
    assert_eq!(list["services"][0]["mode"], "directed");
}

/// Fields of every message in the .proto files.
fn messages() -> BTreeMap<String, BTreeSet<String>> {
    let text = concat!(
        include_str!("../../proto/farm/v1/api.proto"),
        include_str!("../../proto/farm/v1/model.proto")
    );
    let code: String =
        text.lines().map(|l| format!("{}\n", l.split("//").next().unwrap_or_default())).collect();
    let body = |rest: &str| {
        let (name, fields) = rest.split_once('{').unwrap();
        let fields = fields.split_once('}').unwrap().0;
        let field =
            |f: &str| f.split_once('=').map(|(left, _)| left.split_whitespace().last().unwrap().to_owned());
        (name.trim().to_owned(), fields.split(';').filter_map(field).collect())
    };
    code.split("message ").skip(1).map(body).collect()
}

fn same_fields(message: &str, shown: &Value, left_out: &[&str]) {
    let mut expected = messages().remove(message).unwrap_or_else(|| panic!("no message {message}"));
    left_out.iter().for_each(|f| assert!(expected.remove(*f), "{message} has no {f}"));
    let shown: BTreeSet<String> =
        shown.as_object().unwrap().keys().filter(|k| *k != "schema").cloned().collect();
    assert_eq!(shown, expected, "{message}");
}

#[test]
fn json_names_are_the_names_of_the_protocol() {
    let status = json(&view::Status::from(&red()));
    let (node, module) = (&status["nodes"][0], &status["modules"][0]);
    same_fields("StatusResponse", &status, &[]);
    same_fields("Generation", &status["generation"], &[]);
    same_fields("Condition", &status["conditions"][0], &[]);
    same_fields("NodeStatus", node, &[]);
    same_fields("Node", &node["node"], &[]);
    same_fields("Address", &node["node"]["addresses"][0], &[]);
    same_fields("Link", &node["node"]["links"][0], &[]);
    same_fields("ModuleStatus", module, &[]);
    same_fields("Share", &module["shares"][0], &[]);
    same_fields("Module", &module["module"], &["assignment"]);
    same_fields("VirtualIp", &module["module"]["vips"][0], &[]);
    same_fields("Service", &module["module"]["services"][0], &[]);
    same_fields("NodeWeight", &module["module"]["weights"][0], &[]);
    same_fields("ExplainResponse", &json(&view::Explain::from(&explained(true))), &[]);
    let counted = json(&view::Counters::from(&counters()));
    same_fields("CountersResponse", &counted, &[]);
    same_fields("Counter", &counted["counters"][0], &[]);
    same_fields("Event", &json(&view::Event::from(&event())), &[]);
    same_fields("InitResponse", &json(&view::Init::from(&v1::InitResponse::default())), &[]);
    same_fields("JoinClusterResponse", &json(&view::Join::from(&v1::JoinClusterResponse::default())), &[]);
    let definition = v1::ModuleDefinition {
        revisions: vec![v1::Revision::default()],
        readiness: vec![v1::NodeReadiness::default()],
        ..Default::default()
    };
    let definition = json(&view::ModuleDefinition::from(&definition));
    same_fields("ModuleDefinition", &definition, &[]);
    same_fields("Revision", &definition["revisions"][0], &["content"]);
    same_fields("NodeReadiness", &definition["readiness"][0], &[]);
    let life = v1::ModuleLife { resources: vec![v1::Resource::default()], ..Default::default() };
    let life = json(&view::ModuleLife::from(&life));
    same_fields("ModuleLife", &life, &[]);
    same_fields("Resource", &life["resources"][0], &[]);
    same_fields(
        "ModuleApplyResponse",
        &json(&view::ModuleApplied::from(&v1::ModuleApplyResponse::default())),
        &[],
    );
    same_fields("ModuleChange", &json(&view::ModuleChange::from(&v1::ModuleChange::default())), &[]);
    same_fields("Finding", &json(&view::Finding::from(&v1::Finding::default())), &[]);
    same_fields(
        "ModuleControlled",
        &json(&view::NodeControlled::from(&v1::ModuleControlled::default())),
        &[],
    );
    same_fields("ModuleFiles", &json(&view::ModuleFiles::from(&v1::ModuleFiles::default())), &[]);
    same_fields("ModuleFile", &json(&view::ModuleFile::from(&v1::ModuleFile::default())), &["content"]);
    same_fields("ModuleLogLines", &json(&view::ModuleLogLines::from(&v1::ModuleLogLines::default())), &[]);
    same_fields("ScriptResponse", &json(&view::ScriptResponse::from(&v1::ScriptResponse::default())), &[]);
    same_fields("Done", &json(&view::Done::from(&v1::Done::default())), &[]);
}
