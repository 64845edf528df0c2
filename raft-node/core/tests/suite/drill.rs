//! What keeps a failure from being rehearsed.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::command::{Body, Command};
use farm_core::drill::{Target, View, objections};
use farm_core::electors::Electors;
use farm_core::id::{EntryId, Leadership, NodeId};
use farm_core::model::{Definition, Maintenance, Mode, ModuleKind, ModuleName, Readiness, Weight};
use farm_core::state::ClusterState;
use farm_core::time::UnixTime;

use crate::world::{founding, node, service};

/// Three nodes that all serve the module.
struct Cluster {
    state: ClusterState,
    present: BTreeSet<NodeId>,
    voters: BTreeSet<NodeId>,
    open: Vec<String>,
    loops_left: Option<u32>,
}

fn web() -> ModuleName {
    ModuleName("web".into())
}

impl Cluster {
    fn of(nodes: u8) -> Self {
        let mut state = ClusterState::unfounded(3);
        let joins = (2..=nodes).map(|n| Command::any(Body::NodeJoin(node(n))));
        let add = Body::ServiceAdd { module: web(), service: service(80), mode: Mode::Directed };
        let commands = [founding()].into_iter().chain(joins).chain([Command::any(add)]);
        for (index, command) in (1..).zip(commands) {
            let entry = EntryId { by: Leadership { term: 1, leader: NodeId(1) }, index };
            state.apply(&command, entry).expect("a known level").result.expect("it is applied");
        }
        let all: BTreeSet<NodeId> = state.nodes.keys().copied().collect();
        state.electors = Electors::new(all.clone());
        let module = state.modules.get_mut(&web()).expect("it was added");
        for (bucket, owner) in module.assignment.iter_mut().zip(all.iter().cycle()) {
            bucket.current = Some(*owner);
        }
        Self { state, present: all.clone(), voters: all, open: Vec::new(), loops_left: None }
    }

    fn nth(&self, n: usize) -> NodeId {
        *self.voters.iter().nth(n).expect("so many nodes")
    }

    fn view(&self) -> View<'_> {
        let Self { state, present, voters, open, loops_left } = self;
        View { state, present, voters, open, loops_left: *loops_left }
    }

    /// What is said against the loss of the second node.
    fn second(&self) -> Vec<String> {
        objections(&Target::Node(self.nth(1)), &self.view())
    }

    /// What is said against the death of its application there.
    fn application(&self) -> Vec<String> {
        objections(&Target::Application(web(), self.nth(1)), &self.view())
    }

    /// The module has an application, which is like that on each node in turn.
    fn with_application(nodes: u8, on: &[Readiness]) -> Self {
        let mut cluster = Self::of(nodes);
        let application = cluster.voters.iter().copied().zip(on.iter().copied()).collect();
        let definition = Definition { revisions: Vec::new(), born: 1, application: Some(application) };
        cluster.module().definition = Some(definition);
        cluster.loops_left = Some(3);
        cluster
    }

    fn module(&mut self) -> &mut farm_core::model::Module {
        self.state.modules.get_mut(&web()).expect("it was added")
    }
}

/// Exactly one objection, which says this.
fn only(found: &[String], words: &str) {
    assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
}

#[test]
fn one_of_three_may_fail_whoever_it_is() {
    let cluster = Cluster::of(3);
    for n in 0..3 {
        assert_eq!(objections(&Target::Node(cluster.nth(n)), &cluster.view()), Vec::<String>::new());
    }
}

#[test]
fn nothing_is_rehearsed_while_anything_is_not_green() {
    let cluster = Cluster { open: vec!["node3: node_silent".into()], ..Cluster::of(3) };
    only(&cluster.second(), "node3: node_silent");
    let application = Cluster { open: cluster.open, ..Cluster::with_application(3, &[Readiness::Open; 3]) };
    only(&application.application(), "node3: node_silent");
}

#[test]
fn who_is_needed_for_a_majority_stays() {
    let two = Cluster::of(2).second();
    assert!(two.iter().any(|o| o.contains("1 of 2 voters")), "{two:?}");
    assert!(two.iter().any(|o| o.contains("electors")), "{two:?}");
    let mut cluster = Cluster::of(3);
    cluster.present.remove(&cluster.nth(2));
    assert!(cluster.second().iter().any(|o| o.contains("1 of 3 voters")), "{:?}", cluster.second());
    let mut cluster = Cluster::of(3);
    cluster.state.electors = Electors::new([cluster.nth(1)].into());
    only(&cluster.second(), "electors");
}

#[test]
fn a_node_that_is_not_there_cannot_fail() {
    let mut cluster = Cluster::of(5);
    cluster.present.remove(&cluster.nth(1));
    only(&cluster.second(), "node2 is not there");
}

#[test]
fn clients_that_nobody_else_could_serve_keep_their_node() {
    let words = "no other node could serve the clients of web";
    let mut cluster = Cluster::of(3);
    let (first, third) = (cluster.nth(0), cluster.nth(2));
    cluster.module().weights = BTreeMap::from([(first, Weight(0)), (third, Weight(0))]);
    only(&cluster.second(), words);

    let mut cluster = Cluster::of(3);
    let maintenance = Maintenance { since: UnixTime(1), until: None, reason: String::new() };
    cluster.state.maintenance = BTreeMap::from([(first, maintenance.clone()), (third, maintenance)]);
    only(&cluster.second(), words);

    only(
        &Cluster::with_application(3, &[Readiness::Closed, Readiness::Open, Readiness::Closing]).second(),
        words,
    );

    // Who owns nothing takes nothing with it.
    let mut cluster = Cluster::of(3);
    let (first, second) = (cluster.nth(0), cluster.nth(1));
    let third = cluster.nth(2);
    cluster.module().weights = BTreeMap::from([(second, Weight(0)), (third, Weight(0))]);
    cluster.module().assignment.iter_mut().for_each(|bucket| bucket.current = Some(first));
    assert_eq!(cluster.second(), Vec::<String>::new());
}

#[test]
fn an_application_dies_only_where_another_one_serves_and_it_is_started_again() {
    let all = [Readiness::Open; 3];
    assert_eq!(Cluster::with_application(3, &all).application(), Vec::<String>::new());
    assert_eq!(Cluster::with_application(2, &all).application(), Vec::<String>::new(), "nobody votes on it");
    only(&Cluster::of(3).application(), "no application of its own");
    let alone = Cluster::with_application(3, &[Readiness::Closed, Readiness::Open, Readiness::Closed]);
    only(&alone.application(), "nobody but node2");
    let away = Cluster::with_application(3, &[Readiness::Open, Readiness::Closed, Readiness::Open]);
    only(&away.application(), "web is not up on node2");
    let tired = Cluster { loops_left: Some(1), ..Cluster::with_application(3, &all) };
    only(&tired.application(), "1 automatic actions left");
    let mut light = Cluster::with_application(3, &all);
    light.module().kind = ModuleKind::Light;
    only(&light.application(), "nobody but node2");
    let unknown = Target::Application(ModuleName("mail".into()), light.nth(1));
    only(&objections(&unknown, &light.view()), "no module mail");
}
