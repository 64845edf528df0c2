//! Tells those who asked for a virtual IP, and whom this node answers from now on, that it does. As long as their frames
//! are sent on they have no reason to ask again; until they are told, all of them take the longer way. When a node's MAC
//! changes every node tells again whom it answers: any of them may send to the former one, which nobody has any more.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use farm_common::asker::answerer;
use farm_common::flow::{Address, Family};
use farm_common::image::Image;
use farm_common::layout::{Asked, Asker, LINKS};
use farm_common::verdict::NodeIndex;
use farm_core::id::Epoch;
use farm_dataplane::clock::boot_now;
use farm_host::Mac;
use farm_host::announce::{Announcer, Target};
use farm_host::links::LinkInfo;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ANNOUNCE_AT;
use super::filter::HostView;
use crate::lease::LeaseHandle;

/// Told in one go; then others have their turn on the link.
const BURST: usize = 32;
/// Between two goes: 6,400 frames per second at most.
const PAUSE: Duration = Duration::from_millis(5);
/// After everybody was told by whoever stands in for a dead node: the last word is that of who answers.
const AFTER_ALL: Duration = Duration::from_millis(100);
/// How often the lease thread is looked at until it has published the table.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// It takes a grace period. Whoever waits longer has been overtaken or has no filter.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(1);

/// One who is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    asker: Asker,
    mac: Mac,
}

/// What is needed to tell.
pub struct Means {
    /// Sends.
    pub announcer: Arc<Announcer>,
    /// Has heard who asked.
    pub view: Arc<HostView>,
    /// Knows whether this node may speak.
    pub lease: LeaseHandle,
    /// The links by number.
    pub links: Vec<LinkInfo>,
}

/// The table that this node works with, and those before it.
pub struct News {
    table: watch::Sender<Option<Arc<Image>>>,
}

impl Default for News {
    fn default() -> Self {
        Self { table: watch::Sender::new(None) }
    }
}

impl News {
    /// Goes over to `table`. With the first one nobody is told: it only says what was so before.
    pub fn follow(&self, table: Image, means: impl FnOnce() -> Option<Means>) {
        let table = Arc::new(table);
        let Some(before) = self.table.send_replace(Some(table.clone())) else { return };
        if !gains(&before, &table) {
            return;
        }
        if let Some(means) = means() {
            tokio::spawn(means.tell(before, table, self.table.subscribe()));
        }
    }
}

impl Means {
    /// Several times: a frame may be lost. Whoever is answered by another one meanwhile is that one's business.
    async fn tell(self, before: Arc<Image>, after: Arc<Image>, newest: watch::Receiver<Option<Arc<Image>>>) {
        if timeout(PUBLISHED_WITHIN, self.published(Epoch(after.head.epoch))).await.is_err() {
            return;
        }
        let askers = match self.view.askers() {
            Ok(askers) => askers,
            Err(error) => return tracing::warn!(%error, "those who asked cannot be told"),
        };
        let told = concerned(askers, &before, &after);
        let start = Instant::now();
        for at in ANNOUNCE_AT {
            sleep_until(start + at + AFTER_ALL).await;
            for burst in told.chunks(BURST) {
                burst.iter().for_each(|told| self.tell_one(told, newest.borrow().as_deref()));
                sleep(PAUSE).await;
            }
        }
    }

    async fn published(&self, epoch: Epoch) {
        while self.lease.applied() < epoch {
            sleep(LOOK_EVERY).await;
        }
    }

    fn tell_one(&self, told: &Told, table: Option<&Image>) {
        let Some(table) = table.filter(|table| is_mine(table, &told.asker)) else { return };
        let Some(link) = self.links.get(usize::from(told.asker.link)) else { return };
        if boot_now() >= self.lease.deadline() {
            return;
        }
        let own = table.node(told.asker.link, me(table)).mac;
        let (vip, asker) = (ip(told.asker.vip), ip(told.asker.address));
        let target = Target::Unicast(told.mac, asker);
        if let Err(error) = self.announcer.announce(link.ifindex, own, vip, own, target) {
            tracing::debug!(%error, "announcement not sent");
        }
    }
}

/// Does this node answer for buckets for which it did not before, or is somebody to be told for another reason?
fn gains(before: &Image, after: &Image) -> bool {
    if (0..LINKS as u8).any(|link| abandons(before, after, link)) {
        return true;
    }
    let owner = |table: &Image, module: usize, bucket: usize| {
        let entry = table.entries[module][bucket];
        let phase = farm_common::verdict::Phase::try_from(entry.phase).ok()?;
        farm_common::decide::answering(&entry, phase)
    };
    let mine = |table: &Image, module, bucket| owner(table, module, bucket) == Some(me(table));
    let buckets = |module: usize| 0..after.entries[module].len();
    (0..after.entries.len())
        .flat_map(|module| buckets(module).map(move |bucket| (module, bucket)))
        .any(|(module, bucket)| mine(after, module, bucket) && !mine(before, module, bucket))
}

/// Has no node a MAC any more that one had on this link?
fn abandons(before: &Image, after: &Image, link: u8) -> bool {
    let macs = |table: &Image| table.nodes[usize::from(link)].iter().map(|node| node.mac).collect();
    let [former, now]: [BTreeSet<Mac>; 2] = [macs(before), macs(after)];
    former.difference(&now).any(|mac| *mac != Mac::default())
}

/// Those whom this node answers now and did not before, or who may not know where; who asked last first.
fn concerned(mut askers: Vec<(Asker, Asked)>, before: &Image, after: &Image) -> Vec<Told> {
    askers.retain(|(asker, _)| {
        is_mine(after, asker) && (!is_mine(before, asker) || abandons(before, after, asker.link))
    });
    askers.sort_by_key(|(asker, asked)| (std::cmp::Reverse(asked.at), *asker));
    askers.into_iter().map(|(asker, asked)| Told { asker, mac: asked.mac }).collect()
}

fn is_mine(table: &Image, asker: &Asker) -> bool {
    answerer(table, asker) == Some(me(table))
}

fn me(table: &Image) -> NodeIndex {
    NodeIndex(table.head.me)
}

fn ip(bytes: [u8; 16]) -> IpAddr {
    let address = Address::v6(bytes);
    match address.family() {
        Family::V4 => address.low().into(),
        Family::V6 => bytes.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use farm_common::image::SlotBuilder;
    use farm_common::layout::{BUCKETS, Entry};
    use farm_common::verdict::{Mode, Phase};

    use super::*;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));

    fn table(mode: Mode, phase: Phase, previous: u8, current: u8) -> Image {
        let mut builder = SlotBuilder::new(1, 1, 1, [1, 2]).unwrap();
        builder.vip(VIP, 0, 0, mode, [2; 6]).unwrap();
        let entry = Entry { current, previous, phase: phase.into(), reserved: 0 };
        (0..BUCKETS).for_each(|bucket| builder.entry(0, bucket, entry).unwrap());
        builder.finish().unwrap()
    }

    fn asker(last: u8, at: u64) -> (Asker, Asked) {
        let address = |ip: IpAddr| Address::from(ip).bytes();
        let from = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let asker = Asker { vip: address(VIP), address: address(from), link: 0, reserved: [0; 7] };
        (asker, Asked { at, mac: [last; 6], reserved: [0; 2] })
    }

    #[test]
    fn whoever_is_answered_from_now_on_is_told_the_latest_first() {
        let (stable, gained) =
            (table(Mode::Directed, Phase::Stable, 0, 2), table(Mode::Directed, Phase::Activate, 2, 1));
        assert!(gains(&stable, &gained));
        let told = concerned(vec![asker(7, 10), asker(8, 20)], &stable, &gained);
        assert_eq!(told.iter().map(|told| told.mac[0]).collect::<Vec<_>>(), [8, 7]);
        assert_eq!(ip(told[0].asker.address), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 8)));
    }

    #[test]
    fn before_a_change_takes_effect_and_after_it_nobody_is_told() {
        let tables = [
            table(Mode::Directed, Phase::Stable, 0, 2),
            table(Mode::Directed, Phase::Prepare, 2, 1),
            table(Mode::Directed, Phase::Move, 2, 1),
        ];
        assert!(tables.windows(2).all(|pair| !gains(&pair[0], &pair[1])));
        let (activated, settled) =
            (table(Mode::Directed, Phase::Activate, 2, 1), table(Mode::Directed, Phase::Stable, 0, 1));
        assert!(!gains(&activated, &settled));
        assert!(concerned(vec![asker(7, 10)], &activated, &settled).is_empty());
    }

    #[test]
    fn who_gives_up_a_bucket_tells_nobody() {
        let (mine, lost) =
            (table(Mode::Directed, Phase::Stable, 0, 1), table(Mode::Directed, Phase::Activate, 1, 2));
        assert!(!gains(&mine, &lost) && concerned(vec![asker(7, 10)], &mine, &lost).is_empty());
    }

    #[test]
    fn whoever_is_answered_here_is_told_when_a_node_has_another_mac() {
        let with = |mac| {
            let mut table = table(Mode::Directed, Phase::Stable, 0, 1);
            table.nodes[0][2].mac = [2, 0, 0, 0, 0, mac];
            table
        };
        assert!(gains(&with(7), &with(8)));
        assert_eq!(concerned(vec![asker(7, 10)], &with(7), &with(8)).len(), 1);
        assert!(!gains(&with(7), &with(7)) && concerned(vec![asker(7, 10)], &with(7), &with(7)).is_empty());
        assert!(!gains(&table(Mode::Directed, Phase::Stable, 0, 1), &with(7)), "a node more");
        let others = [with(7), with(8)].map(|mut table| {
            table.entries[0].fill(Entry { current: 2, ..Entry::default() });
            table
        });
        assert!(concerned(vec![asker(7, 10)], &others[0], &others[1]).is_empty(), "that one's business");
    }

    #[test]
    fn in_flood_mode_the_answer_is_the_same_whoever_gives_it() {
        let (before, after) =
            (table(Mode::Flood, Phase::Stable, 0, 2), table(Mode::Flood, Phase::Stable, 0, 1));
        assert!(concerned(vec![asker(7, 10)], &before, &after).is_empty());
    }
}
