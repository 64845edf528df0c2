//! `farmctl watch` on a terminal: the whole screen, drawn from what is known.

use std::collections::VecDeque;

use farm_proto::v1;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::screen::{self, Row};
use super::status::title;
use super::{BUCKETS, Names, percent, time};
use crate::view::{Level, Open};

/// Events that can be scrolled back to.
const EVENTS_MAX: usize = 500;
/// A daemon that says nothing for so long has not only been slow: it tells its state four times a second.
const QUIET_MS: u64 = 3_000;
/// Cells of a bar that say more than its number, and as many as one can compare.
const BAR: std::ops::RangeInclusive<usize> = 3..=10;

/// What is known, and how it is looked at.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The last state that was told.
    pub status: v1::StatusResponse,
    /// The last events, the oldest first.
    pub events: VecDeque<v1::Event>,
    /// When that state was told, Unix time.
    pub heard_ms: u64,
    /// Unix time.
    pub now_ms: u64,
    /// The daemon went away.
    pub lost: bool,
    /// So many of the newest events are out of sight.
    pub scroll: usize,
    /// Colours are welcome.
    pub colour: bool,
}

impl Model {
    /// Takes a new state.
    pub fn told(&mut self, status: v1::StatusResponse, now_ms: u64) {
        (self.status, self.heard_ms, self.lost) = (status, now_ms, false);
    }

    /// Takes an event, once however often it is told; who has scrolled back goes on seeing the same.
    pub fn happened(&mut self, event: v1::Event) {
        if self.events.iter().any(|known| known.id == event.id) {
            return;
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
        if self.scroll > 0 {
            self.scroll(1);
        }
    }

    /// Scrolls the events back, or forth where `lines` is negative.
    pub fn scroll(&mut self, lines: isize) {
        let most = self.events.len().saturating_sub(1);
        self.scroll = self.scroll.saturating_add_signed(lines).min(most);
    }

    /// For how long nothing was heard, where that is too long.
    fn quiet_ms(&self) -> Option<u64> {
        let quiet = self.now_ms.saturating_sub(self.heard_ms);
        (self.lost || quiet >= QUIET_MS).then_some(quiet)
    }

    fn style(&self, level: Option<Level>) -> Style {
        let colour = level.filter(|_| self.colour).map(|level| match level {
            Level::Green => Color::Green,
            Level::Yellow => Color::Yellow,
            Level::Red => Color::Red,
        });
        colour.map_or_else(Style::new, |colour| Style::new().fg(colour))
    }
}

/// Draws all of it, on a screen of any size.
pub fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let problems = screen::problems(&model.status);
    let mut above = vec![head(model, &problems, width)];
    above.extend(model.quiet_ms().map(|ms| quiet(model, ms)));
    let below = next(&problems, width);
    let room = height.saturating_sub(above.len() + 1);
    let (modules, open) = (modules(model, width), open(model, &problems, width));
    let wanted = [model.status.nodes.len() + 1, modules.len(), open.len(), model.events.len() + 1];
    let [of_nodes, of_modules, of_open, of_events] = share_out(room, wanted);
    let mut row = print(frame, area, 0, above);
    row = print(frame, area, row, cut(nodes(model, of_nodes), of_nodes));
    row = print(frame, area, row, cut(modules, of_modules));
    row = print(frame, area, row, cut(open, of_open));
    print(frame, area, row, events(model, of_events));
    // The last line is the last of the screen.
    print(frame, area, height.saturating_sub(1), vec![below]);
}

/// Prints lines from `row` on; the row behind them.
fn print(frame: &mut Frame<'_>, area: Rect, row: usize, lines: Vec<Line<'_>>) -> usize {
    let (top, count) =
        (u16::try_from(row).unwrap_or(u16::MAX), u16::try_from(lines.len()).unwrap_or(u16::MAX));
    let at = Rect { y: area.y.saturating_add(top), height: count, ..area }.intersection(area);
    frame.render_widget(Paragraph::new(lines), at);
    row + usize::from(count)
}

/// How many lines each part has. What is not green comes first, events last; none takes all before others have some.
fn share_out(room: usize, wanted: [usize; 4]) -> [usize; 4] {
    const ORDER: [usize; 4] = [2, 0, 1, 3];
    let (mut left, mut rooms) = (room, [0; 4]);
    for at_most in [3, 6, usize::MAX] {
        for part in ORDER {
            let more = (wanted[part].min(at_most) - rooms[part]).min(left);
            rooms[part] += more;
            left -= more;
        }
    }
    rooms
}

/// The first lines; where some are missing the last one says so. A heading alone says nothing.
fn cut(mut lines: Vec<Line<'static>>, room: usize) -> Vec<Line<'static>> {
    if room < 2 {
        return vec![Line::default(); room];
    }
    if lines.len() > room {
        let hidden = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(Line::from(format!("… {hidden} lines more")));
    }
    lines
}

/// The cluster in a line: what does not fit is left out, the least important first.
fn head(model: &Model, problems: &[Open], width: usize) -> Line<'static> {
    let status = &model.status;
    let names = Names::of(status);
    let leader = if status.leader == 0 { "none".into() } else { names.name(status.leader) };
    let (level, word) = screen::word(problems);
    let (level, word) =
        if model.quiet_ms().is_some() { (None, format!("was {word}")) } else { (Some(level), word) };
    let short = word.split(',').next().unwrap_or_default().to_owned();
    let clock = clock(model.now_ms);
    let (leader, epoch) = (format!("leader {leader}"), format!("epoch {}", status.epoch));
    let knows = format!("(as {} knows it)", names.name(status.answered_by));
    let choices = [
        (word.clone(), vec![leader.clone(), epoch.clone(), knows, clock.clone()]),
        (word, vec![leader.clone(), epoch, clock.clone()]),
        (short.clone(), vec![leader, clock]),
        (short, Vec::new()),
    ];
    let fits = |(word, rest): &&(String, Vec<String>)| {
        let rest: usize = rest.iter().map(|part| part.len() + 3).sum();
        status.name.len() + 2 + word.len() + rest <= width
    };
    let (word, rest) = choices.iter().find(fits).unwrap_or(&choices[3]);
    let rest: String = rest.iter().map(|part| format!("   {part}")).collect();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Line::from(vec![
        Span::styled(format!("{}: ", status.name), bold),
        Span::styled(word.clone(), model.style(level).add_modifier(Modifier::BOLD)),
        Span::raw(rest),
    ])
}

fn quiet(model: &Model, ms: u64) -> Line<'static> {
    let text = format!("No news since {} ({} s): asking again", clock(model.heard_ms), ms / 1000);
    Line::styled(text, model.style(Some(Level::Red)).add_modifier(Modifier::BOLD))
}

fn next(problems: &[Open], width: usize) -> Line<'static> {
    const KEYS: &str = "q: leave";
    let next = problems.first().map_or("nothing to do", |problem| problem.next.as_str());
    let text = format!("Next: {next}");
    let gap = width.saturating_sub(text.chars().count() + KEYS.len());
    if gap < 3 { Line::from(text) } else { Line::from(format!("{text}{}{KEYS}", " ".repeat(gap))) }
}

fn heading(text: String) -> Line<'static> {
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
}

/// The worst first, where there is no room for all.
fn nodes(model: &Model, room: usize) -> Vec<Line<'static>> {
    let status = &model.status;
    let mut rows: Vec<Row> = status.nodes.iter().filter_map(|node| screen::node_row(status, node)).collect();
    if rows.len() >= room {
        rows.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    }
    const HEADER: [&str; 4] = ["NODE", "STATE", "RAFT", "APPLICATIONS"];
    let width = |column: usize| {
        let cells = rows.iter().map(|(_, cells)| cells[column].text().chars().count());
        cells.chain([HEADER[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let header: Vec<String> =
        HEADER.iter().zip(&widths).map(|(text, width)| format!("{text:width$}")).collect();
    let line = |(_, cells): &Row| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| Span::styled(format!("{:width$}  ", cell.text()), model.style(cell.said())));
        Line::from(padded.collect::<Vec<_>>())
    };
    std::iter::once(heading(header.join("  "))).chain(rows.iter().map(line)).collect()
}

fn modules(model: &Model, width: usize) -> Vec<Line<'static>> {
    let status = &model.status;
    let found: Vec<_> = status.modules.iter().filter_map(|m| Some((m, m.module.as_ref()?))).collect();
    if found.is_empty() {
        return Vec::new();
    }
    let state = |(entry, module): &(&v1::ModuleStatus, &v1::Module)| {
        screen::module_state(entry, module, status.nodes.len())
    };
    let longest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let of_name = longest(&mut found.iter().map(|(_, module)| module.name.len().max("MODULE".len())));
    let of_state = longest(&mut found.iter().map(|row| state(row).1.len().max("STATE".len())));
    let left = width.saturating_sub(of_name + of_state + 4);
    let line = |row: &(&v1::ModuleStatus, &v1::Module)| {
        let (level, word) = state(row);
        let mut spans = vec![
            Span::raw(format!("{:of_name$}  ", row.1.name)),
            Span::styled(format!("{word:of_state$}  "), model.style(Some(level))),
        ];
        spans.extend(bars(row, &Names::of(status), left));
        Line::from(spans)
    };
    let header = format!("{:of_name$}  {:of_state$}  SHARES", "MODULE", "STATE");
    std::iter::once(heading(header)).chain(found.iter().map(line)).collect()
}

/// `node1 ███░░░ 33.3%`, without the bar where there is no room for it.
fn bars(
    (entry, module): &(&v1::ModuleStatus, &v1::Module),
    names: &Names,
    width: usize,
) -> Vec<Span<'static>> {
    if module.services.is_empty() {
        return vec![Span::raw("-")];
    }
    let owned: u32 = entry.shares.iter().map(|share| share.buckets).sum();
    let of_nodes = entry.shares.iter().map(|share| (names.name(share.node), share.buckets));
    let nobody = ("nobody".to_owned(), BUCKETS.saturating_sub(owned));
    let some: Vec<(String, u32)> = of_nodes.chain([nobody]).filter(|(_, buckets)| *buckets > 0).collect();
    let words: usize = some.iter().map(|(name, _)| name.len() + " 100.0%  ".len()).sum();
    let room = width.saturating_sub(words) / some.len().max(1);
    let cells = room.saturating_sub(1).min(*BAR.end());
    let draw = |(name, buckets): &(String, u32)| {
        let full = (*buckets as usize * cells + BUCKETS as usize / 2) / BUCKETS as usize;
        let bar = format!(" {}{}", "█".repeat(full), "░".repeat(cells.saturating_sub(full)));
        let bar = if BAR.contains(&cells) { bar } else { String::new() };
        Span::raw(format!("{name}{bar} {}  ", percent(*buckets)))
    };
    some.iter().map(draw).collect()
}

/// What is not green, the worst first; a cause goes over as many lines as it takes.
fn open(model: &Model, problems: &[Open], width: usize) -> Vec<Line<'static>> {
    if problems.is_empty() {
        return Vec::new();
    }
    let lines = problems.iter().flat_map(|open| {
        let word = if open.level == Level::Red { "red" } else { "yellow" };
        let text = format!("{word} {}: {}", title(open), open.cause);
        let style = model.style(Some(open.level));
        let part = move |(at, line): (usize, String)| match line.strip_prefix(word) {
            Some(rest) if at == 0 => Line::from(vec![Span::styled(word, style), Span::raw(rest.to_owned())]),
            _ => Line::from(line),
        };
        wrapped(&text, width).into_iter().enumerate().map(part)
    });
    std::iter::once(heading("NOT GREEN".into())).chain(lines).collect()
}

/// Broken between words; every line but the first begins with two blanks.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map(|line| (line.chars().count(), line));
        match line {
            Some((0, line)) => line.push_str(word),
            Some((length, line)) if length + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    lines
}

/// As many as there is room for, the newest last; the newest of all are out of sight where somebody has scrolled back.
fn events(model: &Model, room: usize) -> Vec<Line<'static>> {
    let names = Names::of(&model.status);
    let line = |event: &v1::Event| {
        let (time, node) = (clock(event.time_unix_ms), names.name(event.node));
        Line::from(format!("{time} {node} {}", event.text))
    };
    let newer = if model.scroll == 0 { String::new() } else { format!(" ({} newer below)", model.scroll) };
    let shown = model.events.len() - model.scroll.min(model.events.len());
    let lines = model.events.iter().take(shown).skip((shown + 1).saturating_sub(room)).map(line);
    std::iter::once(heading(format!("EVENTS{newer}"))).chain(lines).take(room).collect()
}

/// `12:03:11Z`
fn clock(unix_ms: u64) -> String {
    let instant = time(unix_ms);
    instant.get(11..19).map_or(instant.clone(), |clock| format!("{clock}Z"))
}
