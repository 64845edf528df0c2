//! Who accepts a new flow: a SYN is led through the filters as a switch would.

use farm_common::decide::{Given, Question, decide};
use farm_common::flow::{Address, Flow, Kind, protocol};
use farm_common::layout::Entry;
use farm_common::verdict::{Acceptance, BootTime, Dst, Mode, NodeIndex, Phase, Sender, Socket, Verdict};
use farm_core::planted::{Bug, is_planted};

/// Forwards that a frame may need (DESIGN §4).
const FORWARDS_MAX: usize = 3;

const SYN: Flow = Flow {
    client: Address::v4([192, 0, 2, 1]),
    vip: Address::v4([10, 0, 0, 100]),
    protocol: protocol::TCP,
    client_port: 40_000,
    service_port: 80,
    kind: Kind::Syn,
};

/// What became of a SYN, whichever node it came in at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Fate {
    /// Machines that may accept it, bit `i` for machine `i`.
    pub acceptors: u32,
    /// Whether some walk did not end.
    pub endless: bool,
}

/// Leads a SYN of one bucket through all filters, from every entry. `entries[i]` is what machine `i` works with;
/// `None`: it has no lease.
#[must_use]
pub fn walk(mode: Mode, entries: &[Option<Entry>]) -> Fate {
    let mut fate = Fate::default();
    let dst = match mode {
        Mode::Directed => Dst::Own,
        Mode::Flood => Dst::VMac,
    };
    for at in 0..entries.len() {
        visit(mode, entries, at, (Sender::Direct, dst), 0, &mut fate);
    }
    fate
}

fn visit(
    mode: Mode,
    entries: &[Option<Entry>],
    at: usize,
    (from, dst): (Sender, Dst),
    forwards: usize,
    fate: &mut Fate,
) {
    let Some(entry) = entries.get(at).copied().flatten() else { return };
    match judge(mode, entry, index(at), from, dst) {
        Verdict::Accept(Acceptance::Owner | Acceptance::New) => fate.acceptors |= 1 << at,
        Verdict::Forward { .. } if forwards == FORWARDS_MAX => fate.endless = true,
        Verdict::Forward { node, course } => {
            let sender = Sender::Node { node: index(at), marked: course.marked() };
            visit(mode, entries, usize::from(node.0) - 1, (sender, Dst::Own), forwards + 1, fate);
        }
        Verdict::Accept(Acceptance::Socket | Acceptance::Fragment)
        | Verdict::Pass
        | Verdict::Answer
        | Verdict::Drop(_) => {}
    }
}

fn judge(mode: Mode, entry: Entry, me: NodeIndex, from: Sender, dst: Dst) -> Verdict {
    let moving = entry.phase == u8::from(Phase::Move) && entry.current == me.0;
    let from = if moving && is_planted(Bug::AcceptFromAnyone) {
        Sender::Node { node: NodeIndex(entry.previous), marked: true }
    } else {
        from
    };
    let question = Question { flow: SYN, entry, me, mode, from, dst, deadline: BootTime(1) };
    decide(&question, &Given { socket: Socket::None, now: BootTime(0) })
}

fn index(machine: usize) -> NodeIndex {
    NodeIndex(u8::try_from(machine + 1).expect("a simulation has a handful of machines"))
}
