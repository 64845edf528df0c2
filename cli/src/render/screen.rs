//! `farmctl status`: nodes, modules, what is not green and what to do next, in the lines of a terminal.

use farm_proto::v1::{self, LifeStatus, Place};

use super::status::{raft, title};
use super::table::{Paint, Table, Text};
use super::{BUCKETS, Names, percent, service, state};
use crate::view::{Level, Open, State};

/// Lines of a terminal (DEC VT100), which all of it fits into.
const LINES: usize = 24;
/// Those that are always there: the head, three blanks, two headers of tables, the last line.
const FIXED: usize = 7;
/// What is not green is at least so many lines, if it is as many: they are what somebody looks for.
const PROBLEMS: usize = 6;

/// A line of a table, and how good what it says is.
pub(super) type Row = (Level, Vec<Text>);

/// The whole screen, at most 24 lines.
#[must_use]
pub fn screen(status: &v1::StatusResponse, colour: bool) -> String {
    if !status.member {
        return super::status::alone(status, colour);
    }
    let names = Names::of(status);
    let problems = problems(status);
    let nodes: Vec<Row> = status.nodes.iter().filter_map(|node| node_row(status, node)).collect();
    let modules: Vec<Row> =
        status.modules.iter().filter_map(|m| module_row(m, &names, nodes.len())).collect();
    let room = LINES - FIXED;
    let wanted = problems.len().min(PROBLEMS);
    let for_nodes = nodes.len().min((room - wanted).saturating_sub(modules.len()).max((room - wanted) / 2));
    let for_modules = modules.len().min(room - wanted - for_nodes);
    let for_problems = problems.len().min(room - for_nodes - for_modules);
    let parts = [
        head(status, &names, &problems, colour),
        table(&["NODE", "STATE", "RAFT", "APPLICATIONS"], nodes, for_nodes, colour),
        table(&["MODULE", "STATE", "SERVICES", "SHARES"], modules, for_modules, colour),
        listed(&problems, for_problems, colour),
    ];
    let next = problems.first().map_or("nothing to do", |problem| problem.next.as_str());
    format!("{}Next: {next}\n", parts.join("\n"))
}

/// The worst first; those that are alike in the order in which they were told.
pub(super) fn problems(status: &v1::StatusResponse) -> Vec<Open> {
    let mut problems = Open::all(status);
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.level));
    problems
}

/// All of it in a word, and how many things that is about.
pub(super) fn word(problems: &[Open]) -> (Level, String) {
    let level = problems.first().map_or(Level::Green, |problem| problem.level);
    let word = match (level, problems.len()) {
        (Level::Green, _) => "GREEN".into(),
        (Level::Yellow, 1) => "YELLOW, one thing is on its way".into(),
        (Level::Yellow, count) => format!("YELLOW, {count} things are on their way"),
        (Level::Red, 1) => "RED, one thing is wrong".into(),
        (Level::Red, count) => format!("RED, {count} things are not green"),
    };
    (level, word)
}

fn head(status: &v1::StatusResponse, names: &Names, problems: &[Open], colour: bool) -> String {
    let (level, word) = word(problems);
    let leader = if status.leader == 0 { "none".into() } else { names.name(status.leader) };
    format!(
        "cluster {}: {}   leader {leader}   epoch {}   (as {} knows it)\n",
        status.name,
        level.paint(&word, colour),
        status.epoch,
        names.name(status.answered_by)
    )
}

pub(super) fn node_row(status: &v1::StatusResponse, entry: &v1::NodeStatus) -> Option<Row> {
    let node = entry.node.as_ref()?;
    let state = State::of(entry, status.epoch);
    let lives = status.modules.iter().flat_map(|m| &m.lives).filter(|life| life.node == node.id);
    let (mut level, mut words) = (state.level(), Vec::new());
    let mut up = 0;
    for life in lives {
        if life.status() == LifeStatus::Ready {
            up += 1;
        } else {
            level = level.max(life_level(life));
            words.push(format!("{} {}", life.module, life_word(life)));
        }
    }
    if up > 0 {
        words.insert(0, format!("{up} up"));
    }
    let applications = if words.is_empty() { "-".into() } else { words.join(", ") };
    let cells = [
        Text::plain(&node.name),
        state::text(state, entry),
        Text::plain(raft(status, entry)),
        Text::plain(&applications),
    ];
    Some((level, cells.into()))
}

fn module_row(status: &v1::ModuleStatus, names: &Names, nodes: usize) -> Option<Row> {
    let module = status.module.as_ref()?;
    let (level, state) = module_state(status, module, nodes);
    let services = match module.services.as_slice() {
        [] => "-".into(),
        [only] => service(only),
        [first, more @ ..] => format!("{} and {} more", service(first), more.len()),
    };
    let share = |share: &v1::Share| format!("{} {}", names.name(share.node), percent(share.buckets));
    let some: Vec<String> = status.shares.iter().filter(|s| s.buckets > 0).map(share).collect();
    let shares = if module.services.is_empty() || some.is_empty() { "-".into() } else { some.join(", ") };
    let cells =
        [Text::plain(&module.name), Text::level(&state, level), Text::plain(&services), Text::plain(&shares)];
    Some((level, cells.into()))
}

/// In a word, with the worst that is to be said of it.
pub(super) fn module_state(status: &v1::ModuleStatus, module: &v1::Module, nodes: usize) -> (Level, String) {
    let owned: u32 = status.shares.iter().map(|s| s.buckets).sum();
    let served = module.services.is_empty() || owned >= BUCKETS;
    let application = module.definition.as_ref().is_some_and(|d| d.application);
    let up = status.lives.iter().filter(|life| life.status() == LifeStatus::Ready).count();
    let worst = status.lives.iter().map(life_level).max().unwrap_or(Level::Green);
    match (application, served) {
        (_, false) if owned > 0 => (Level::Red, format!("{} served by nobody", percent(BUCKETS - owned))),
        (true, _) if up == 0 && status.lives.iter().all(|l| l.place() == Place::Stop && !l.failed) => {
            (Level::Yellow, "stopped".into())
        }
        (_, false) => (Level::Red, "served by nobody".into()),
        (true, true) if up < status.lives.len() => (worst, format!("up on {up} of {nodes}")),
        (true, true) => (worst, "up".into()),
        (false, true) if status.open_changes > 0 => (Level::Yellow, "served, moving".into()),
        (false, true) => (Level::Green, "served".into()),
    }
}

fn life_level(life: &v1::ModuleLife) -> Level {
    match (life.status(), life.place()) {
        _ if life.failed => Level::Red,
        (LifeStatus::Ready, _) => Level::Green,
        (LifeStatus::NotReady, Place::Wait) => Level::Red,
        (LifeStatus::NotReady | LifeStatus::Transient | LifeStatus::Unspecified, _) => Level::Yellow,
    }
}

fn life_word(life: &v1::ModuleLife) -> &'static str {
    match (life.status(), life.place()) {
        _ if life.failed => "failed",
        (LifeStatus::Ready, _) => "up",
        (LifeStatus::NotReady, Place::Wait) => "waits",
        (LifeStatus::NotReady, _) => "stopped",
        (LifeStatus::Transient, _) => "on its way",
        (LifeStatus::Unspecified, _) => "unknown",
    }
}

/// The rows, or, where there is no room for all of them, the worst, and how many more there are.
fn table(header: &[&str], mut rows: Vec<Row>, room: usize, colour: bool) -> String {
    let mut table = Table::new(header);
    let all = rows.len();
    if all > room {
        rows.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
        let hidden = rows.split_off(room.saturating_sub(1));
        let bad = hidden.iter().filter(|(level, _)| *level != Level::Green).count();
        let word = if bad == 0 { "all green".into() } else { format!("{bad} of them not green") };
        rows.push((Level::Green, vec![Text::plain(&format!("{} more", hidden.len())), Text::plain(&word)]));
    }
    rows.into_iter().for_each(|(_, cells)| table.row(cells));
    table.draw(colour)
}

/// One line each.
fn listed(problems: &[Open], room: usize, colour: bool) -> String {
    let shown = if problems.len() > room { room.saturating_sub(1) } else { problems.len() };
    let line = |open: &Open| {
        let word = if open.level == Level::Red { "red" } else { "yellow" };
        format!("{} {}: {}\n", open.level.paint(word, colour), title(open), open.cause)
    };
    let mut text: String = problems.iter().take(shown).map(line).collect();
    if shown < problems.len() {
        text.push_str(&format!("{} more: farmctl cluster status\n", problems.len() - shown));
    }
    text
}
