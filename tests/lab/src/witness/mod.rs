//! The witness: judges from the wire who accepted what. What a node's filter or daemon says about itself is not
//! asked; a SYN-ACK, RST, echo reply or UDP answer with the virtual IP as source that leaves a node's cable is an
//! acceptance that nobody can argue away. What a tap behind the filter saw is judged besides. All namespaces share one clock, so acceptances are totally ordered.

mod acceptance;
mod bytes;
mod frame;
mod icmp;
mod judge;
mod neighbour;
mod packet;
mod syn;
mod tap;
mod time;

pub use acceptance::{Acceptance, Kind, acceptances};
pub use frame::{Content, Frame, Mac, Segment};
pub use icmp::{Icmp, Message, Quoted};
pub use judge::{Case, Criterion, Expected, SYNS_MIN, Verdict, Violation, Window, judge};
pub use neighbour::{Neighbour, Speech};
pub use syn::{Outcome, RunningSyns, Syn, SynStream, longest_gap, outcomes, owners};
pub(crate) use syn::{internet_checksum, packet};
pub use tap::{Heading, Side, Sighting, Testimony, Witness};
pub use time::BootTime;
