//! The demo: a farm under real load, four faults in turn, and what the clients noticed.

mod load;
mod measure;
mod picture;
mod report;
mod scene;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{Lab, Spec};
use crate::names::Place;
use crate::{FIRST_VIP, Status, WEB_MODULE};
pub use load::{Load, Plan, Request, TIMEOUT};
pub(crate) use load::{ask, clients};
pub(crate) use measure::longest_gap;
pub use measure::{CONSECUTIVE, Measured, RECOVERY, TOLERANCE_POINTS, measure};
use picture::Picture;
pub use report::{Row, read, table, write};
use scene::Scene;

/// Requests per second: with so many in the seconds that are judged, a right share is off by 2 points by chance in
/// about one of three thousand cases.
pub const RATE: u32 = 3_000;
/// A node that returned is back in its share after the damping of flaps and one planned change.
const RETURN_LIMIT: Duration = Duration::from_secs(60);

/// How the demo shows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Show {
    /// Requests per second.
    pub rate: u32,
    /// Redraw a picture instead of printing a line per second.
    pub picture: bool,
}

/// Runs the demo on a lab of its own and returns a row per step.
///
/// # Errors
/// The lab did not come up, or a fault could not be caused or mended. A farm that does not recover is no error: its
/// row says so.
pub fn run(spec: Spec, show: Show) -> Result<Vec<Row>> {
    ensure!(spec.nodes >= 3, "{} nodes: the demo needs 3, so that a majority is left", spec.nodes);
    eprintln!("starting {} servers, a client, a router ...", spec.nodes);
    let lab = Arc::new(Lab::up(spec)?);
    let plan = Plan { rate: show.rate, ..Plan::new(FIRST_VIP) };
    let load = Arc::new(Load::start(&lab, plan)?);
    let picture = Picture::start(Arc::clone(&lab), Arc::clone(&load), show.picture)?;
    let rows = Stage { lab: &lab, load: &load, picture: &picture }.play();
    picture.stop();
    // The thread that shared them has ended.
    Arc::into_inner(load).context("the load is still in use")?.stop()?;
    Arc::into_inner(lab).context("the lab is still in use")?.down()?;
    rows
}

/// Something that happens, and what must be true afterwards.
struct Step<'a> {
    text: String,
    /// Who must answer afterwards, each its share.
    live: &'a [Place],
    /// Who is asked whether the shares have settled before the clients' clock starts: somebody who was there all the
    /// time, for a node that comes back knows only the past. `None`: the clock starts at once.
    settled_for: Option<Place>,
}

struct Stage<'a> {
    lab: &'a Lab,
    load: &'a Load,
    picture: &'a Picture,
}

impl Stage<'_> {
    fn play(&self) -> Result<Vec<Row>> {
        let everybody: Vec<Place> = self.lab.nodes().collect();
        let calm = Step { text: "all is calm".into(), live: &everybody, settled_for: None };
        let mut rows = vec![self.watch(calm, || Ok(()))?];
        for scene in Scene::ALL {
            let victim = scene.victim(&everybody, self.leader()?);
            let others: Vec<Place> = everybody.iter().copied().filter(|place| *place != victim).collect();
            let strike = Step { text: scene.strike_text(victim), live: &others, settled_for: None };
            rows.push(self.watch(strike, || scene.strike(self.lab, victim))?);
            let mend = Step {
                text: scene.mend_text(victim),
                live: &everybody,
                settled_for: others.first().copied(),
            };
            rows.push(self.watch(mend, || scene.mend(self.lab, victim))?);
        }
        Ok(rows)
    }

    /// Lets a step happen, waits as long as its judgement needs, and measures.
    fn watch(&self, step: Step, act: impl FnOnce() -> Result<()>) -> Result<Row> {
        let Step { text, live, settled_for } = step;
        self.picture.say(&text);
        let at = self.load.now();
        act().with_context(|| text.clone())?;
        let judged_from = match settled_for {
            None => at,
            Some(asked) => {
                self.await_shares(asked, live)?;
                self.load.now()
            }
        };
        // Every request that started in the time that is judged has ended by then.
        std::thread::sleep((judged_from + RECOVERY + TIMEOUT).saturating_sub(self.load.now()));
        let row = Row::new(text, live, measure(&self.load.since(at), judged_from, live));
        self.picture.say(&row.sentence());
        Ok(row)
    }

    fn await_shares(&self, asked: Place, live: &[Place]) -> Result<()> {
        let what = "every node serves its share again";
        self.lab.await_status(asked, what, RETURN_LIMIT, |status| status.settled(WEB_MODULE, live)).map(drop)
    }

    fn leader(&self) -> Result<Place> {
        /// An election takes a fraction of a second.
        const LIMIT: Duration = Duration::from_secs(10);
        let known = |status: &Status| status.leader().is_some();
        let status = self.lab.await_status(Place::Node(1), "a leader", LIMIT, known)?;
        status.leader().context("the status has a leader")
    }
}
