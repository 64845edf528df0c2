//! The live picture: who answers, who owns what, what is happening. On a terminal it is redrawn in place; elsewhere
//! it is one line per second.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::load::{Load, Request};
use crate::farmctl::{BUCKETS, Status, WEB_MODULE};
use crate::lab::Lab;
use crate::names::Place;

/// How often the terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(250);
/// How often a line is printed elsewhere, and the cluster is asked.
const LINE: Duration = Duration::from_secs(1);
/// A daemon that does not answer in this time is frozen: the picture goes on without it.
const ANSWER: Duration = Duration::from_millis(200);
/// The time whose answers are shown.
const WINDOW: Duration = Duration::from_secs(1);
/// Width of a full bar.
const BAR: usize = 40;
/// Longer lines are cut off by the terminal, so that the picture can be taken back by its number of lines.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
/// Sentences that stay visible.
const SENTENCES: usize = 9;

/// The picture's owner.
pub(super) struct Picture {
    stop: Sender<()>,
    said: Arc<Mutex<VecDeque<String>>>,
    thread: JoinHandle<()>,
    redraw: bool,
}

impl Picture {
    pub(super) fn start(lab: Arc<Lab>, load: Arc<Load>, redraw: bool) -> Result<Self> {
        let (stop, stopped) = channel();
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let painter = Painter { lab, load, said: Arc::clone(&said), lines: 0, asked: None, status: None };
        let work = move || if redraw { painter.redraw(&stopped) } else { painter.print(&stopped) };
        let thread =
            std::thread::Builder::new().name("picture".into()).spawn(work).context("the picture's thread")?;
        Ok(Self { stop, said, thread, redraw })
    }

    /// Adds a sentence below the picture.
    pub(super) fn say(&self, sentence: &str) {
        if !self.redraw {
            eprintln!("{sentence}");
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_back(sentence.to_owned());
        while said.len() > SENTENCES {
            said.pop_front();
        }
    }

    /// Ends it with the last picture left on the screen.
    pub(super) fn stop(self) {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

struct Painter {
    lab: Arc<Lab>,
    load: Arc<Load>,
    said: Arc<Mutex<VecDeque<String>>>,
    /// Lines of the picture on the screen.
    lines: usize,
    asked: Option<Instant>,
    status: Option<Status>,
}

impl Painter {
    fn redraw(mut self, stopped: &Receiver<()>) {
        while goes_on(stopped, REDRAW) {
            self.ask();
            let picture = self.picture();
            let up = self.lines;
            self.lines = picture.lines().count();
            let back = if up > 0 { format!("\x1b[{up}A\x1b[J") } else { String::new() };
            // A terminal that is gone is no reason to stop the demo.
            let _ = write!(std::io::stderr(), "{back}{NO_WRAP}{picture}{WRAP}");
        }
    }

    fn print(mut self, stopped: &Receiver<()>) {
        while goes_on(stopped, LINE) {
            self.ask();
            let recent = Recent::of(&self.load);
            let line =
                self.nodes().map(|node| format!("{node} {:.1} %", recent.share(node))).collect::<Vec<_>>();
            eprintln!("{:5.1} s  {}  {}", self.load.now().as_secs_f64(), recent.rate(), line.join("  "));
        }
    }

    fn nodes(&self) -> impl Iterator<Item = Place> + use<> {
        self.lab.nodes()
    }

    /// Asks the cluster about once a second, whichever daemon answers; no answer leaves the last one.
    fn ask(&mut self) {
        if self.asked.is_some_and(|at| at.elapsed() < LINE) {
            return;
        }
        self.asked = Some(Instant::now());
        let running = |node: &Place| self.lab.farmd(*node).is_ok_and(|farmd| farmd.is_some());
        let answers =
            self.nodes().filter(running).filter_map(|node| self.lab.status_within(node, ANSWER).ok());
        // A node that is cut off answers too: the newest epoch knows most.
        self.status = answers.max_by_key(|status| (status.term, status.epoch)).or(self.status.take());
    }

    fn picture(&self) -> String {
        let recent = Recent::of(&self.load);
        let mut text = format!("\n  {}  at {:.1} s\n\n", recent.rate(), self.load.now().as_secs_f64());
        for node in self.nodes() {
            let share = recent.share(node);
            let bar = "█".repeat((share / 100.0 * BAR as f64).round() as usize);
            let _ = writeln!(text, "  {node:<7} {bar:<BAR$} {share:5.1} %   {}", self.owner(node));
        }
        text.push('\n');
        for sentence in self.said.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "  {sentence}");
        }
        text
    }

    fn owner(&self, node: Place) -> String {
        let Some(status) = &self.status else { return String::new() };
        let buckets = status.buckets(WEB_MODULE, node);
        let leads = if status.leader() == Some(node) { ", leader" } else { "" };
        let heard = if status.nodes.iter().any(|n| n.node.name == node.to_string() && n.heard) {
            ""
        } else {
            ", silent"
        };
        format!("owns {buckets} of {BUCKETS} buckets{leads}{heard}")
    }
}

fn goes_on(stopped: &Receiver<()>, pause: Duration) -> bool {
    stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
}

/// The requests that ended in the last second.
struct Recent {
    answers: BTreeMap<Place, usize>,
    failed: usize,
}

impl Recent {
    fn of(load: &Load) -> Self {
        let requests = load.ended_since(load.now().saturating_sub(WINDOW));
        let mut answers = BTreeMap::new();
        requests
            .iter()
            .filter_map(|r: &Request| r.by)
            .for_each(|node| *answers.entry(node).or_default() += 1);
        Self { answers, failed: requests.iter().filter(|r| r.by.is_none()).count() }
    }

    fn rate(&self) -> String {
        format!("{:5} answers a second, {:3} failed", self.answers.values().sum::<usize>(), self.failed)
    }

    fn share(&self, node: Place) -> f64 {
        let total: usize = self.answers.values().sum();
        100.0 * *self.answers.get(&node).unwrap_or(&0) as f64 / total.max(1) as f64
    }
}
