//! What the loss of a node or a room would do.

use std::collections::BTreeSet;

use farm_core::arbiter::Kind;
use farm_core::command::{Body, Command};
use farm_core::electors::Electors;
use farm_core::id::{EntryId, Leadership, NodeId};
use farm_core::model::{Mode, ModuleName, Node, Profile, Role};
use farm_core::state::ClusterState;
use farm_core::survival::{Loss, Lost, View, losses, notes};
use farm_core::tiebreak::{Rehearsal, TieBreak};
use farm_core::time::UnixTime;

use crate::world::{founding, node, service};

/// A farm whose nodes all vote; the last `witnesses` of them serve nothing. `rooms` says who stands where.
struct Case {
    state: ClusterState,
    present: BTreeSet<NodeId>,
    voters: BTreeSet<NodeId>,
}

impl Case {
    fn of(servers: u8, witnesses: u8, rooms: &[&str]) -> Self {
        let room = |n: u8| rooms.get(usize::from(n) - 1).map_or(String::new(), |room| (*room).to_owned());
        let member = |n: u8| {
            let node = Node { room: room(n), ..node(n) };
            if n <= servers { node } else { Node { role: Role::Witness, links: Vec::new(), ..node } }
        };
        let mut found = founding();
        if let Body::Found { node, .. } = &mut found.body {
            node.room = room(1);
        }
        let joins = (2..=servers + witnesses).map(|n| Command::any(Body::NodeJoin(member(n))));
        let web = ModuleName("web".into());
        let add = Body::ServiceAdd { module: web.clone(), service: service(80), mode: Mode::Directed };
        let commands = [found].into_iter().chain(joins).chain([Command::any(add)]);
        let mut state = ClusterState::unfounded(4);
        for (index, command) in (1..).zip(commands) {
            let entry = EntryId { by: Leadership { term: 1, leader: NodeId(1) }, index };
            state.apply(&command, entry).expect("a known level").result.expect("it is applied");
        }
        let all: BTreeSet<NodeId> = state.nodes.keys().copied().collect();
        state.electors = Electors::new(all.clone());
        let owners: Vec<NodeId> =
            state.nodes.values().filter(|n| n.role == Role::Server).map(|n| n.id).collect();
        let module = state.modules.get_mut(&web).expect("it was added");
        for (bucket, owner) in module.assignment.iter_mut().zip(owners.iter().cycle()) {
            bucket.current = Some(*owner);
        }
        Self { state, present: all.clone(), voters: all }
    }

    fn nth(&self, n: usize) -> NodeId {
        *self.state.nodes.keys().nth(n - 1).expect("so many nodes")
    }

    fn view(&self) -> View<'_> {
        View { state: &self.state, present: &self.present, voters: &self.voters }
    }

    /// The losses that end the service.
    fn fatal(&self) -> Vec<Loss> {
        losses(&self.view()).into_iter().filter(|loss| !loss.reasons.is_empty()).collect()
    }
}

#[test]
fn three_votes_survive_the_loss_of_one_and_two_of_none() {
    assert!(Case::of(3, 0, &[]).fatal().is_empty());
    assert!(Case::of(2, 1, &[]).fatal().is_empty());
    let two = Case::of(2, 0, &[]).fatal();
    assert_eq!(two.len(), 2);
    assert!(two[0].reasons[0].contains("without node1 1 of 2 voters are left"), "{two:?}");
    assert!(two[0].cure.contains("--role witness"), "{two:?}");
    let one = Case::of(1, 0, &[]).fatal();
    assert!(one[0].cure.contains("second server"), "{one:?}");
    assert!(one[0].reasons.iter().any(|r| r.contains("no other node could serve the clients of web")));
}

#[test]
fn a_router_lets_either_of_two_servers_go_on_and_no_witness_serve() {
    let with = |servers: u8, witnesses: u8, failure: &str, profile: Profile| {
        let mut case = Case::of(servers, witnesses, &[]);
        let nodes = case.state.nodes.keys().copied().collect();
        let rehearsed = Rehearsal { at: UnixTime(1), nodes, profile, failure: failure.into() };
        case.state.tie_break = Some(TieBreak {
            kind: Kind::Exclusive,
            routers: [([192, 0, 2, 1].into(), [2, 0, 0, 0, 0, 9])].into(),
            address: Some([192, 0, 2, 99].into()),
            rehearsed: Some(rehearsed),
        });
        case
    };
    let now = Case::of(2, 0, &[]).state.profile;
    assert!(with(2, 0, "", now).fatal().is_empty());
    assert_eq!(with(2, 0, "it is no lock", now).fatal().len(), 2);
    assert_eq!(with(2, 0, "", Profile::Virtual).fatal().len(), 2, "tried with another timing");
    assert_eq!(with(1, 1, "", now).fatal().len(), 1, "a witness that is left serves nobody");
    let mut new = with(2, 0, "", now);
    if let Some(tie_break) = new.state.tie_break.as_mut() {
        tie_break.rehearsed.as_mut().expect("set above").nodes.pop_last();
    }
    assert_eq!(new.fatal().len(), 2, "one has not taken part");
}

#[test]
fn who_is_gone_already_makes_the_others_precious() {
    let mut case = Case::of(2, 1, &[]);
    let third = case.nth(3);
    case.present.remove(&third);
    let fatal = case.fatal();
    assert_eq!(fatal.len(), 2, "{fatal:?}");
    assert!(fatal[0].cure.starts_with("bring node3 back"), "{fatal:?}");
    assert!(losses(&case.view())[2].gone);
    assert!(notes(&case.view())[0].contains("node3 is silent and still votes"));
    // Of five two may go one after the other, as soon as the voters have followed the living.
    let mut case = Case::of(5, 0, &[]);
    let gone: BTreeSet<NodeId> = [case.nth(4), case.nth(5)].into();
    case.present = &case.present - &gone;
    assert_eq!(case.fatal().len(), 3);
    case.voters = &case.voters - &gone;
    assert!(notes(&case.view())[0].contains("being changed"));
    case.state.electors = Electors::new(case.voters.clone());
    assert!(case.fatal().is_empty() && notes(&case.view()).is_empty());
}

#[test]
fn a_room_takes_all_that_stands_in_it() {
    let lit = Case::of(2, 1, &["east", "west", "north"]);
    assert!(lit.fatal().is_empty());
    assert_eq!(losses(&lit.view()).len(), 6);
    let dark = Case::of(2, 1, &["east", "west", "west"]).fatal();
    assert_eq!(dark.len(), 1, "{dark:?}");
    assert_eq!(dark[0].lost, Lost::Room("west".into()));
    assert!(dark[0].cure.contains("three rooms"), "{dark:?}");
    let without = Case::of(4, 1, &["east", "east", "west", "west", "north"]);
    assert!(without.fatal().is_empty());
}
