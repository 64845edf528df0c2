//! The words of the decision: what goes in, what comes out, and the reason that is counted.

use crate::flow::Address;

/// A code that names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unknown(pub u32);

impl core::fmt::Display for Unknown {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "{} is no known value; the table comes from another version", self.0)
    }
}

impl core::error::Error for Unknown {}

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident: $int:ty { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr($int)]
        pub enum $name { $($(#[$variant_doc])* $variant = $code,)+ }

        impl $name {
            /// All values, in the order of their codes.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];
        }

        impl TryFrom<$int> for $name {
            type Error = Unknown;

            #[inline(always)]
            fn try_from(code: $int) -> Result<Self, Unknown> {
                match code {
                    $($code => Ok(Self::$variant),)+
                    other => Err(Unknown(u32::from(other))),
                }
            }
        }

        impl From<$name> for $int {
            #[inline(always)]
            fn from(value: $name) -> $int { value as $int }
        }
    };
}

coded! {
    /// Step of a bucket's change. `P` is [`crate::layout::Entry::previous`], `C` is `current`.
    ///
    /// ```text
    /// Stable --Prepare--> Prepare --Move--> Move --Activate--> Activate --Settle--> Stable
    ///    |                                   |                    ^
    ///    +------Move (P is dead)-------------+--Move (C is dead)--+ through MoveClosed
    /// ```
    Phase: u8 {
        /// `C` accepts everything; there is no `P`.
        Stable = 0,
        /// `P` accepts everything, `C` already takes what `P` would send.
        Prepare = 1,
        /// `P` keeps its flows and bounces the rest to `C`, marked.
        Move = 2,
        /// A move on top of a move: nobody bounces, nobody accepts new flows until Activate.
        MoveClosed = 3,
        /// `C` accepts new flows, `P` keeps its old ones and goes on bouncing.
        Activate = 4,
    }
}

coded! {
    /// How frames reach the acceptor.
    Mode: u8 {
        /// To any node, which sends them on.
        Directed = 0,
        /// To every node at once.
        Flood = 1,
    }
}

coded! {
    /// What of a client selects the bucket.
    Criterion: u8 {
        /// Its address.
        SourceAddress = 0,
        /// Its address and port.
        SourcePort = 1,
        /// Its /64 of IPv6, within which hosts change their addresses (RFC 8981); of IPv4 its address.
        SourceNetwork = 2,
    }
}

impl Criterion {
    /// What is hashed of a client with this address and port.
    #[inline(always)]
    #[must_use]
    pub fn hashed(self, client: &Address, port: u16) -> (Address, Option<u16>) {
        match self {
            Self::SourceAddress => (*client, None),
            Self::SourcePort => (*client, Some(port)),
            Self::SourceNetwork => (client.network(), None),
        }
    }
}

/// Index of a node in a table; 0 is nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeIndex(pub u8);

impl NodeIndex {
    /// The index that names nobody.
    pub const NOBODY: Self = Self(0);
}

/// An instant of the boot clock, in nanoseconds since boot, suspend included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BootTime(pub u64);

/// Who sent the frame on this link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sender {
    /// A client or a router; or a node that talks for itself, from its own address.
    Direct,
    /// A node that sends on somebody else's frame.
    Node {
        /// Which.
        node: NodeIndex,
        /// Does the frame carry the mark of a bounce?
        marked: bool,
    },
}

/// Whom the frame is addressed to on this link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dst {
    /// The interface's own MAC.
    Own,
    /// The virtual MAC of flood mode.
    VMac,
    /// Everybody.
    Broadcast,
    /// Somebody else, or a group.
    Other,
}

/// What this host has for the flow's address and port pairs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Socket {
    /// Nothing.
    None,
    /// A listener only, or an unconnected UDP socket.
    Listener {
        /// The frame acknowledges a SYN cookie that this host issued.
        cookie: bool,
    },
    /// A connection in TIME_WAIT.
    TimeWait,
    /// A request socket, a connection in any other state, or a connected UDP socket.
    Flow,
}

/// Why a frame was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Acceptance {
    /// This node owns the bucket: everything is its.
    Owner,
    /// This node holds the flow's socket.
    Socket,
    /// A new flow in an open change, and it is this node's.
    New,
    /// A TCP fragment without known ports in an open change; it belongs to an old flow.
    Fragment,
}

/// Why a frame was sent on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Course {
    /// To the presumed acceptor.
    Owner,
    /// From the current owner to the previous one, who may hold the flow.
    Previous,
    /// From the previous owner to the current one. The only course that is marked.
    Bounce,
    /// A unicast solicitation, to the node that answers.
    Solicitation,
}

impl Course {
    /// Does the frame leave with the mark?
    #[inline(always)]
    pub fn marked(self) -> bool {
        match self {
            Self::Bounce => true,
            Self::Owner | Self::Previous | Self::Solicitation => false,
        }
    }
}

/// What happens to a frame.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Not for a virtual IP: to the local stack, untouched.
    Pass,
    /// To the local stack, with the proof of passage and without a mark.
    Accept(Acceptance),
    /// To another node's MAC.
    Forward {
        /// Which.
        node: NodeIndex,
        /// Why, and whether with the mark.
        course: Course,
    },
    /// Back as an ARP reply or neighbour advertisement that names this interface, or in flood mode the virtual MAC.
    Answer,
    /// Away.
    Drop(Reason),
}

impl Verdict {
    /// The counter of this verdict.
    #[inline(always)]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Pass => Reason::Passed,
            Self::Accept(Acceptance::Owner) => Reason::AcceptOwner,
            Self::Accept(Acceptance::Socket) => Reason::AcceptSocket,
            Self::Accept(Acceptance::New) => Reason::AcceptNew,
            Self::Accept(Acceptance::Fragment) => Reason::AcceptFragment,
            Self::Forward { course: Course::Owner, .. } => Reason::ForwardOwner,
            Self::Forward { course: Course::Previous, .. } => Reason::ForwardPrevious,
            Self::Forward { course: Course::Bounce, .. } => Reason::ForwardBounce,
            Self::Forward { course: Course::Solicitation, .. } => Reason::ForwardArp,
            Self::Answer => Reason::ArpAnswered,
            Self::Drop(reason) => *reason,
        }
    }
}

/// Elements of the map of counters; room for reasons to come.
pub const REASONS: u32 = 64;

coded! {
    /// One counter each. Codes are stable: pinned counters outlive the program that wrote them.
    Reason: u32 {
        /// Not for a virtual IP.
        Passed = 0,
        /// Accepted: this node owns the bucket.
        AcceptOwner = 1,
        /// Accepted: this node holds the socket.
        AcceptSocket = 2,
        /// Accepted: a new flow of this node in an open change.
        AcceptNew = 3,
        /// Accepted: a TCP fragment of an old flow in an open change.
        AcceptFragment = 4,
        /// Sent to the bucket's acceptor.
        ForwardOwner = 8,
        /// Sent back to the previous owner, who may hold the flow.
        ForwardPrevious = 9,
        /// Bounced from the previous to the current owner.
        ForwardBounce = 10,
        /// A unicast ARP request or neighbour solicitation sent to the node that answers.
        ForwardArp = 11,
        /// An ARP request or neighbour solicitation answered.
        ArpAnswered = 12,
        /// Header cut short, or contradicts itself.
        Malformed = 16,
        /// Neither TCP nor UDP, nor an ICMP echo request or error.
        Protocol = 19,
        /// A fragment with the SYN, or one made to hide it.
        FragmentedSyn = 20,
        /// Nothing is configured at this port.
        NoService = 21,
        /// Addressed to a MAC that this node does not act for.
        WrongMac = 22,
        /// The table holds a value that this program does not know.
        BadTable = 25,
        /// The bucket has no owner.
        NoOwner = 26,
        /// Another node's frame (flood), or a solicitation that another node answers.
        NotOwner = 27,
        /// Sent on by a node, and this node is no party to the bucket, or may not send it on again.
        FromNode = 28,
        /// The bucket's change is closed until Activate.
        ChangeClosed = 29,
        /// No new flow, nobody holds its socket, and the change is still open: silent, no reset.
        NoSocket = 30,
        /// A bounced copy of a frame that this node has got itself (flood).
        Duplicate = 31,
        /// The node to send it to is not on this link.
        NoPeer = 32,
        /// No valid lease.
        LeaseExpired = 33,
        /// More IPv6 extension headers than are looked through.
        Extensions = 34,
        /// It would have to be sent on, and its time to live or hop limit is used up.
        HopLimit = 35,
    }
}

impl Reason {
    /// Name in counters, logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::AcceptOwner => "accept_owner",
            Self::AcceptSocket => "accept_socket",
            Self::AcceptNew => "accept_new",
            Self::AcceptFragment => "accept_fragment",
            Self::ForwardOwner => "forward_owner",
            Self::ForwardPrevious => "forward_previous",
            Self::ForwardBounce => "forward_bounce",
            Self::ForwardArp => "forward_arp",
            Self::ArpAnswered => "arp_answered",
            Self::Malformed => "malformed",
            Self::Extensions => "extensions",
            Self::Protocol => "protocol",
            Self::FragmentedSyn => "fragmented_syn",
            Self::NoService => "no_service",
            Self::WrongMac => "wrong_mac",
            Self::BadTable => "bad_table",
            Self::NoOwner => "no_owner",
            Self::NotOwner => "not_owner",
            Self::FromNode => "from_node",
            Self::ChangeClosed => "change_closed",
            Self::NoSocket => "no_socket",
            Self::Duplicate => "duplicate",
            Self::NoPeer => "no_peer",
            Self::LeaseExpired => "lease_expired",
            Self::HopLimit => "hop_limit",
        }
    }

    /// The same in words, as the CLI shows it.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Passed => "not for a virtual IP",
            Self::AcceptOwner => "accepted: this node owns the bucket",
            Self::AcceptSocket => "accepted: this node holds the connection",
            Self::AcceptNew => "accepted: new flows of this moving bucket are this node's",
            Self::AcceptFragment => "accepted: fragment of an old connection of a moving bucket",
            Self::ForwardOwner => "sent to the bucket's owner",
            Self::ForwardPrevious => "sent to the bucket's previous owner, who may hold the connection",
            Self::ForwardBounce => "sent by the previous owner to the new one",
            Self::ForwardArp => "unicast ARP or ND request sent to the node that answers",
            Self::ArpAnswered => "ARP or ND request answered",
            Self::Malformed => "dropped: malformed header",
            Self::Extensions => "dropped: too many IPv6 extension headers",
            Self::Protocol => "dropped: protocol is not served",
            Self::FragmentedSyn => "dropped: fragmented SYN",
            Self::NoService => "dropped: no service at this port",
            Self::WrongMac => "dropped: addressed to another MAC",
            Self::BadTable => "dropped: the table holds an unknown value",
            Self::NoOwner => "dropped: the bucket has no owner",
            Self::NotOwner => "dropped: another node's",
            Self::FromNode => "dropped: sent on by a node to one that is no party",
            Self::ChangeClosed => "dropped: the bucket is closed until its change is activated",
            Self::NoSocket => "dropped: no connection known while the bucket moves",
            Self::Duplicate => "dropped: copy of a frame that came directly",
            Self::NoPeer => "dropped: the other node is not on this link",
            Self::LeaseExpired => "dropped: no valid lease",
            Self::HopLimit => "dropped: to be sent on, but its hop limit is used up",
        }
    }
}
const _: () = assert!(Reason::LeaseExpired as u32 >= 32 && (Reason::HopLimit as u32) < REASONS);
