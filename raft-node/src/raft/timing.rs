//! How long Raft waits.

use std::time::Duration;

use farm_core::command::Body;
use farm_core::lease;
use farm_core::model::Profile;
use farm_core::time::Span;

/// Election and heartbeat times. openraft reads them once, at start: of its configuration only the switches for
/// ticks, heartbeats, elections and pre-votes can change while it runs. A new profile therefore takes effect for
/// elections when the daemon is started next; leases follow it at once (they are not Raft's).
/// Members with different times work together; the slowest voter sets the pace of a failover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// A follower waits its leader's lease (`election_max`) plus a random time from here ...
    pub election_min: Duration,
    /// ... to here before it becomes a candidate.
    pub election_max: Duration,
    /// A leader is heard of this often.
    pub heartbeat: Duration,
}

impl Timing {
    /// The times of a profile.
    #[must_use]
    pub const fn of(profile: Profile) -> Self {
        let profile = lease::Timing::of(profile);
        Self {
            election_min: part(profile.election_min),
            election_max: part(profile.election_max),
            heartbeat: Duration::from_nanos(profile.renewal.0),
        }
    }

    /// Longest that a command or membership change is waited for. A failover takes at most three `election_max` (lease,
    /// timeout, vote) and may fail once; less than 2 s would give up on a slow disk.
    #[must_use]
    pub fn patience(&self) -> Duration {
        (self.election_max * 6).max(Duration::from_secs(2))
    }
}

/// openraft waits its leader's lease, which is `election_max`, *before* the election timeout: two thirds of the
/// profile's times keep what a failover costs near them (docs/adr/0008).
const fn part(of_profile: Span) -> Duration {
    Duration::from_nanos(of_profile.0 / 3 * 2)
}

/// The profile a command sets, if any.
pub(crate) fn profile_of(body: &Body) -> Option<Profile> {
    match body {
        Body::Found { profile, .. } | Body::ProfileSet(profile) => Some(*profile),
        _ => None,
    }
}
