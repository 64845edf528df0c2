//! The configurations that are searched, and those that find each planted bug.

use farm_core::planted::Bug;

use super::config::{Config, Intent};
use super::reached::Reached;

/// Where a search is cut that would not end soon.
const CUT: usize = 500_000;

const ONE: Config = Config { terms: 1, log: 2, ..Config::THREE };

const TWO: Config =
    Config { nodes: 2, voters: 0b11, electors: 2, leaders: 0b01, leased: 0b11, log: 4, states: CUT, ..ONE };

/// Nodes 1 and 2 vote; node 3 owns everything, and its lease is followed.
const SERVER: Config =
    Config { voters: 0b011, electors: 1, owners: [2, 2], leased: 0b100, states: CUT, ..ONE };

/// The first node drains what the second has, and the second loses it too.
const DRAIN: Config = Config {
    name: "drain with two predecessors",
    leased: 0b011,
    history: &[Intent::Move(1, 1)],
    log: 5,
    leaders: 0b100,
    intents: &[Intent::Move(1, 2), Intent::Settle(1)],
    states: CUT,
    ..ONE
};

/// Electors have come and are about to go; a reboot takes the owner back to before both.
const MOVING_ELECTORS: Config = Config {
    name: "electors 1, 12, 2, owner reboots",
    leaders: 0b010,
    history: &[Intent::Electors(0b01, 0b11)],
    log: 9,
    reboots: 1,
    fragile: 0b100,
    intents: &[Intent::Electors(0b11, 0b10), Intent::Move(1, 1)],
    voter_changes: &[0b10],
    ..SERVER
};

/// Every configuration, with what it must come to.
pub const CHECKED: [(Config, &[Reached]); 19] = [
    (
        Config { name: "one move, owner reboots", reboots: 1, fragile: 0b001, ..ONE },
        &[Reached::Released, Reached::Expired, Reached::Refused, Reached::NotFenced],
    ),
    (
        Config {
            name: "one move, owner's daemon restarts",
            restarts: 1,
            fragile: 0b001,
            leaders: 0b010,
            ..ONE
        },
        &[Reached::Resumed, Reached::Released, Reached::Expired],
    ),
    (
        Config { name: "one move, electors restart", restarts: 1, fragile: 0b110, leaders: 0b100, ..ONE },
        &[Reached::Released, Reached::Expired],
    ),
    (Config { name: "one move, leases of 2 ticks", lease: 2, ..ONE }, &[Reached::Expired]),
    (
        Config { name: "one move, 2 terms", terms: 2, leaders: 0b110, ..ONE },
        &[Reached::ReleasedInLaterTerm, Reached::ExpiredInLaterTerm, Reached::MoveCut, Reached::TwoLeaders],
    ),
    (
        Config {
            name: "one move, 2 terms, blank entries",
            terms: 2,
            leaders: 0b110,
            blank: true,
            log: 4,
            states: CUT,
            ..ONE
        },
        &[Reached::ExpiredInLaterTerm, Reached::TwoLeaders],
    ),
    (Config { name: "one move, slow elector", slow: 0b100, ..ONE }, &[Reached::Expired]),
    (
        Config {
            name: "one move, slow elector, owner restarts",
            slow: 0b010,
            restarts: 1,
            fragile: 0b001,
            leaders: 0b010,
            states: CUT,
            ..ONE
        },
        &[Reached::AnswerToOlderRun, Reached::Resumed],
    ),
    (
        Config { name: "one move, grace periods", grace: true, leaders: 0b010, ..ONE },
        &[Reached::OpenBeforeGrace, Reached::Released],
    ),
    (
        Config {
            name: "planned: prepare to settle",
            log: 4,
            leaders: 0b010,
            intents: &[Intent::Prepare(3, 1), Intent::Move(3, 1), Intent::Settle(3), Intent::Cancel(3)],
            states: CUT,
            ..ONE
        },
        &[Reached::Settled, Reached::Cancelled],
    ),
    (
        Config {
            name: "second move",
            leased: 0b011,
            log: 4,
            leaders: 0b100,
            intents: &[Intent::Move(1, 1), Intent::Move(1, 2), Intent::Settle(1)],
            states: CUT,
            ..ONE
        },
        &[Reached::Closed, Reached::Settled],
    ),
    (
        Config {
            name: "second move, 1 elector, losers reboot",
            voters: 0b001,
            electors: 1,
            leaders: 0b001,
            owners: [1, 1],
            leased: 0b110,
            log: 4,
            reboots: 1,
            fragile: 0b110,
            intents: &[Intent::Move(1, 2), Intent::Move(1, 0), Intent::Settle(1)],
            states: CUT,
            ..ONE
        },
        &[Reached::TwoLosersActivated, Reached::SettledAfterTwoMoves],
    ),
    (DRAIN, &[Reached::Closed, Reached::SettledAfterTwoMoves]),
    (
        Config {
            name: "drain with two predecessors, the first reboots",
            reboots: 1,
            fragile: 0b001,
            ..DRAIN
        },
        &[Reached::Closed, Reached::Settled, Reached::Refused],
    ),
    (
        Config {
            name: "back and forth",
            intents: &[Intent::Move(1, 1), Intent::Move(1, 0), Intent::Settle(1)],
            ..TWO
        },
        &[Reached::Closed, Reached::SettledAfterTwoMoves],
    ),
    (
        Config {
            name: "two buckets change places",
            owners: [0, 1],
            intents: &[Intent::Move(1, 1), Intent::Move(2, 0)],
            ..TWO
        },
        &[Reached::Released, Reached::Expired],
    ),
    (
        Config {
            name: "electors 1, 12, by two leaders",
            terms: 2,
            leaders: 0b011,
            log: 5,
            intents: &[Intent::Electors(0b01, 0b11), Intent::Move(1, 0), Intent::ElectorsCancel],
            ..SERVER
        },
        &[Reached::ElectorsChangedByAnother, Reached::ElectorsKept, Reached::ExpiredInLaterTerm],
    ),
    (
        Config {
            name: "electors 123, 12",
            voters: 0b111,
            electors: 3,
            leaders: 0b010,
            log: 4,
            intents: &[Intent::Electors(0b111, 0b011), Intent::Move(1, 1)],
            ..SERVER
        },
        &[Reached::ElectorsChanged, Reached::Released],
    ),
    (MOVING_ELECTORS, &[Reached::ElectorsChanged, Reached::VotersChanged]),
];

/// The configuration in which `bug` breaks a promise; `None` for planned restarts, which are no part of the model.
#[must_use]
pub fn planted(bug: Bug) -> Option<Config> {
    let config = match bug {
        Bug::CheckApartFromStamp | Bug::ActivateWithoutWaiting | Bug::AcceptFromAnyone => ONE,
        Bug::LeaseFromAnswer => Config { slow: 0b001, ..ONE },
        Bug::FenceOnlyCommitted => Config { reboots: 1, fragile: 0b001, ..ONE },
        Bug::NoGrantReset => Config { restarts: 1, fragile: 0b110, ..ONE },
        Bug::NoIncarnation => Config { slow: 0b010, restarts: 1, fragile: 0b001, leaders: 0b010, ..ONE },
        Bug::EvidenceByEpoch => Config { terms: 2, log: 3, ..ONE },
        Bug::WaitEqualsLease => Config { lease: 5, ..ONE },
        Bug::NoBaseCheck => {
            Config { log: 3, leaders: 0b100, intents: &[Intent::Touch, Intent::Move(1, 2)], ..ONE }
        }
        Bug::ReportBeforeFlip => Config { grace: true, ..ONE },
        Bug::LowerEpochAfterRestart => Config { restarts: 1, fragile: 0b001, ..ONE },
        Bug::JointWithoutSeal => Config { log: 7, ..MOVING_ELECTORS },
        Bug::RestartForgotten
        | Bug::RefusedRestart
        | Bug::LongerBeforeSettled
        | Bug::ForgottenByLaggard
        | Bug::LateClaim
        | Bug::PossessionByReceipt
        | Bug::ClaimAgain
        | Bug::NoHold
        | Bug::GapIgnored => {
            return None;
        }
    };
    Some(config)
}
