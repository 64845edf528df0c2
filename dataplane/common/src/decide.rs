//! The decision about one frame for a virtual IP.
//!
//! A bucket has a current owner `C` and, in an open change, a previous owner `P`. What each does with a
//! frame (*new*: it may open a flow; *bounced*: sent on by `P`, with the mark; *socket*: this host holds the
//! flow's TCP socket; *any socket*: or a connected UDP socket for it):
//!
//! | phase | P | C | third node |
//! |---|---|---|---|
//! | Stable | – | accept | to C |
//! | Prepare | accept | socket: accept; bounced: accept if new, else drop; else to P | to P |
//! | Move | any socket: accept; from C, not new: drop; else bounce to C | as Prepare | to P |
//! | MoveClosed | any socket: accept; else drop | socket: accept; else drop | as C |
//! | Activate | socket: accept; else as Move | new or socket: accept; bounced: drop; else to P | to C |
//!
//! - A datagram is always new, and so is an ICMP error about one. Until Activate P's word counts for them: C may have
//!   a connected socket left from when the client was its own, and a datagram has no SYN that tells. So may any other
//!   node: two of them that took the same datagram would be two acceptors of one flow. Activate waits until P's connected
//!   sockets are drained or given up; from then on datagrams are C's alone.
//! - Three rules end every walk (after three forwards at most, checked over all mixtures of table versions). A third
//!   node never sends on what a node sent on. C never returns to P what P sent on: unmarked, it comes from P's older
//!   table, in which C is P's peer the other way round. P returns to C what C sent on only once: C marks nothing, unless
//!   its table is from before a reboot. Who sent a frame on is known by its MAC ([`sender`]); where something between the
//!   nodes changes that, the packet's own count of hops ends the walk ([`crate::rewrite`]).
//! - TCP fragments whose first one is not known ([`crate::fragment`]) have no ports to look a socket up by, and never
//!   carry a SYN: in an open change they belong to P.
//! - In flood mode every node has the frame already. Nobody sends anything on but P the new flows it
//!   bounces (C may not have opened yet), and all others drop that copy.
//! - The lease is looked at last, and only before something leaves this function: the clock is the dearest
//!   input, and its reading is the instant of acceptance.

use crate::flow::{Flow, Kind, protocol};
use crate::fragment::{Fragments, Ports, Whole};
use crate::layout::Entry;
use crate::verdict::{
    Acceptance, BootTime, Course, Dst, Mode, NodeIndex, Phase, Reason, Sender, Socket, Verdict,
};

/// What is known of one frame and its bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// The flow.
    pub flow: Flow,
    /// State of its bucket.
    pub entry: Entry,
    /// This node.
    pub me: NodeIndex,
    /// Delivery mode of the virtual IP.
    pub mode: Mode,
    /// Who sent it on this link.
    pub from: Sender,
    /// Whom it is addressed to on this link.
    pub dst: Dst,
    /// Until when this node may act: not at this instant, nor later.
    pub deadline: BootTime,
}

/// What has to be asked of the host, each at most once and only when the decision hangs on it.
pub trait Env {
    /// What sockets this host has for the flow. Only called for TCP and UDP, in an open change.
    fn socket(&self, flow: &Flow) -> Socket;
    /// The boot clock. Only called when the frame is otherwise to be acted on.
    fn now(&self) -> BootTime;
}

/// Fixed answers, for everything but the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Given {
    /// See [`Env::socket`].
    pub socket: Socket,
    /// See [`Env::now`].
    pub now: BootTime,
}

impl Fragments for Given {
    fn remember(&self, _: &Whole, _: Ports) {}

    fn recall(&self, _: &Whole) -> Option<Ports> {
        None
    }
}

impl Env for Given {
    fn socket(&self, _: &Flow) -> Socket {
        self.socket
    }

    fn now(&self) -> BootTime {
        self.now
    }
}

/// Decides about one frame for a configured virtual IP.
#[inline(always)]
pub fn decide(question: &Question, env: &impl Env) -> Verdict {
    let wanted = match Phase::try_from(question.entry.phase) {
        Err(_) => Verdict::Drop(Reason::BadTable),
        Ok(_) if !question.addressed() => Verdict::Drop(Reason::WrongMac),
        Ok(_) if question.current() == NodeIndex::NOBODY => Verdict::Drop(Reason::NoOwner),
        Ok(phase) => match question.flow.kind {
            Kind::Solicitation => question.arp(phase),
            _ => question.packet(phase, env),
        },
    };
    match wanted {
        Verdict::Pass | Verdict::Drop(_) => wanted,
        Verdict::Accept(_) | Verdict::Forward { .. } | Verdict::Answer => {
            if env.now() < question.deadline {
                wanted
            } else {
                Verdict::Drop(Reason::LeaseExpired)
            }
        }
    }
}

/// Who sent a frame on, given the node whose MAC it came from and whether the packet's source is that node's own address.
/// A node that uses a service as an ordinary client does so from there. What carries the mark was bounced, whatever source
/// it claims: taken for a new question it would be sent back, and bounced, without end. (So what a node itself sends with
/// the code point of the mark is taken for a bounce too, and may be dropped.)
#[inline(always)]
#[must_use]
pub fn sender(by: Option<(NodeIndex, bool)>, marked: bool) -> Sender {
    match by {
        None => Sender::Direct,
        Some((_, own)) if own && !marked => Sender::Direct,
        Some((node, _)) => Sender::Node { node, marked },
    }
}

/// Who answers requests for the virtual IP by clients of this bucket: whoever accepts what they send then.
#[inline(always)]
#[must_use]
pub fn answering(entry: &Entry, phase: Phase) -> Option<NodeIndex> {
    match phase {
        Phase::Stable | Phase::Activate => Some(NodeIndex(entry.current)),
        Phase::Prepare | Phase::Move => Some(NodeIndex(entry.previous)),
        Phase::MoveClosed => None,
    }
}

impl Question {
    #[inline(always)]
    fn current(&self) -> NodeIndex {
        NodeIndex(self.entry.current)
    }

    #[inline(always)]
    fn previous(&self) -> NodeIndex {
        NodeIndex(self.entry.previous)
    }

    /// Is the frame addressed to a MAC that this node acts for?
    #[inline(always)]
    fn addressed(&self) -> bool {
        match (self.dst, self.mode) {
            (Dst::Own, _) | (Dst::VMac, Mode::Flood) => true,
            (Dst::Broadcast, _) => self.flow.kind == Kind::Solicitation,
            (Dst::VMac, Mode::Directed) | (Dst::Other, _) => false,
        }
    }

    #[inline(always)]
    fn packet(&self, phase: Phase, env: &impl Env) -> Verdict {
        match phase {
            _ if self.has_original(phase) => Verdict::Drop(Reason::Duplicate),
            Phase::Stable if self.me == self.current() => Verdict::Accept(Acceptance::Owner),
            Phase::Stable => self.third(self.current()),
            Phase::MoveClosed => self.closed(env),
            Phase::Prepare if self.me == self.previous() => Verdict::Accept(Acceptance::Owner),
            Phase::Move if self.me == self.previous() => self.leaving(self.holds_any(env)),
            Phase::Activate if self.me == self.previous() => self.leaving(self.holds(env)),
            Phase::Prepare | Phase::Move if self.me == self.current() => self.entering(env),
            Phase::Activate if self.me == self.current() => self.opened(env),
            Phase::Prepare | Phase::Move => self.third(self.previous()),
            Phase::Activate => self.third(self.current()),
        }
    }

    /// In flood mode every node gets the client's frame: what a node sent on is a copy, and only wanted by a C
    /// that waits for P's word.
    #[inline(always)]
    fn has_original(&self, phase: Phase) -> bool {
        let waits =
            matches!(phase, Phase::Prepare | Phase::Move) && self.me == self.current() && self.bounced();
        match (self.mode, self.from) {
            (Mode::Flood, Sender::Node { .. }) => !waits,
            (Mode::Flood, Sender::Direct) | (Mode::Directed, _) => false,
        }
    }

    /// A node that is no party to the bucket.
    #[inline(always)]
    fn third(&self, acceptor: NodeIndex) -> Verdict {
        match self.from {
            Sender::Direct => self.send(acceptor, Course::Owner),
            Sender::Node { .. } => Verdict::Drop(Reason::FromNode),
        }
    }

    /// P from Move on: keeps what it holds, bounces the rest.
    #[inline(always)]
    fn leaving(&self, held: bool) -> Verdict {
        if self.flow.kind == Kind::TcpFragment {
            return Verdict::Accept(Acceptance::Fragment);
        }
        if held {
            return Verdict::Accept(Acceptance::Socket);
        }
        match self.from {
            Sender::Node { node, marked: true } if node == self.current() => Verdict::Drop(Reason::FromNode),
            Sender::Node { node, .. } if node == self.current() && !self.flow.opens() => {
                Verdict::Drop(Reason::NoSocket)
            }
            Sender::Node { .. } | Sender::Direct => self.bounce(),
        }
    }

    #[inline(always)]
    fn bounce(&self) -> Verdict {
        match self.mode {
            // C has the frame, and whether it holds the socket does not hang on the phase.
            Mode::Flood if !self.flow.opens() => Verdict::Drop(Reason::NotOwner),
            Mode::Flood | Mode::Directed => Verdict::Forward { node: self.current(), course: Course::Bounce },
        }
    }

    /// C before Activate: takes what it holds, and new flows only from P's hand.
    #[inline(always)]
    fn entering(&self, env: &impl Env) -> Verdict {
        let (bounced, new) = (self.bounced(), self.flow.opens());
        if self.holds(env) {
            return self.held(bounced);
        }
        match (bounced, new) {
            (true, true) => Verdict::Accept(Acceptance::New),
            (true, false) => Verdict::Drop(Reason::NoSocket),
            (false, _) => self.hand_back(),
        }
    }

    /// C from Activate on: takes what it holds and new flows.
    #[inline(always)]
    fn opened(&self, env: &impl Env) -> Verdict {
        if self.flow.opens() {
            return Verdict::Accept(Acceptance::New);
        }
        if self.holds(env) {
            return Verdict::Accept(Acceptance::Socket);
        }
        if self.bounced() { Verdict::Drop(Reason::NoSocket) } else { self.hand_back() }
    }

    /// C sends to P what P may hold, but never back what P itself sent on.
    #[inline(always)]
    fn hand_back(&self) -> Verdict {
        match self.from {
            Sender::Node { node, .. } if node == self.previous() => Verdict::Drop(Reason::FromNode),
            Sender::Node { .. } | Sender::Direct => self.send(self.previous(), Course::Previous),
        }
    }

    /// C has the socket: in flood mode it also has the original of a bounced copy.
    #[inline(always)]
    fn held(&self, bounced: bool) -> Verdict {
        match self.mode {
            Mode::Flood if bounced => Verdict::Drop(Reason::Duplicate),
            Mode::Flood | Mode::Directed => Verdict::Accept(Acceptance::Socket),
        }
    }

    /// Anybody while the change is closed. Of datagrams P's word counts, as before in Move.
    #[inline(always)]
    fn closed(&self, env: &impl Env) -> Verdict {
        let held = if self.me == self.previous() { self.holds_any(env) } else { self.holds(env) };
        if held { Verdict::Accept(Acceptance::Socket) } else { Verdict::Drop(Reason::ChangeClosed) }
    }

    /// Sends an unmarked frame on; in flood mode the other has it already.
    #[inline(always)]
    fn send(&self, node: NodeIndex, course: Course) -> Verdict {
        match self.mode {
            Mode::Flood => Verdict::Drop(Reason::NotOwner),
            Mode::Directed if node == NodeIndex::NOBODY => Verdict::Drop(Reason::NoPeer),
            Mode::Directed => Verdict::Forward { node, course },
        }
    }

    /// Did P bounce it? The mark tells a bounce from the ordinary forward of a node with an older table.
    #[inline(always)]
    fn bounced(&self) -> bool {
        match self.from {
            Sender::Node { node, marked } => marked && node == self.previous(),
            Sender::Direct => false,
        }
    }

    /// Does this host hold the TCP flow? A SYN that meets a connection in TIME_WAIT opens a new one.
    #[inline(always)]
    fn holds(&self, env: &impl Env) -> bool {
        self.flow.protocol == protocol::TCP && self.holds_any(env)
    }

    /// The same for UDP too, where only a connected socket holds a flow.
    #[inline(always)]
    fn holds_any(&self, env: &impl Env) -> bool {
        let has_sockets = matches!(self.flow.protocol, protocol::TCP | protocol::UDP);
        match self.flow.kind {
            Kind::Syn | Kind::Datagram => matches!(env.socket(&self.flow), Socket::Flow),
            Kind::Segment => {
                matches!(
                    env.socket(&self.flow),
                    Socket::Flow | Socket::TimeWait | Socket::Listener { cookie: true }
                )
            }
            Kind::Error if has_sockets => {
                matches!(env.socket(&self.flow), Socket::Flow | Socket::TimeWait)
            }
            Kind::Error | Kind::Echo => false,
            Kind::TcpFragment | Kind::DatagramFragment | Kind::Solicitation => false,
        }
    }

    /// A request for the virtual IP: one node answers, a unicast probe is taken to it.
    ///
    /// A probe that a node sent on is not sent on again: two parties with different tables would keep it
    /// going. The requester asks again.
    #[inline(always)]
    fn arp(&self, phase: Phase) -> Verdict {
        let Some(answers) = answering(&self.entry, phase) else {
            return Verdict::Drop(Reason::ChangeClosed);
        };
        if answers == self.me {
            return Verdict::Answer;
        }
        match (self.dst, self.from) {
            (Dst::Own, Sender::Direct) => self.send(answers, Course::Solicitation),
            (Dst::Own, Sender::Node { .. }) => Verdict::Drop(Reason::FromNode),
            (Dst::VMac | Dst::Broadcast | Dst::Other, _) => Verdict::Drop(Reason::NotOwner),
        }
    }
}
