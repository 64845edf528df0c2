//! What `farmctl watch` draws on a terminal.

mod common;

use common::{green, red};
use farm_proto::v1;
use farmctl::render::live::{Model, draw};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

const NOON: u64 = 1_769_860_800_000;

fn model(status: v1::StatusResponse) -> Model {
    let mut model = Model { now_ms: NOON, ..Model::default() };
    model.told(status, NOON);
    for second in 0..30 {
        model.happened(event(second));
    }
    model
}

fn event(second: u64) -> v1::Event {
    v1::Event {
        id: format!("n1-{second}"),
        time_unix_ms: NOON - 30_000 + second * 1000,
        node: 1,
        text: format!("event {second}"),
        ..v1::Event::default()
    }
}

/// The lines of the screen, without blanks at their ends.
fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    let cells = terminal.backend().buffer().content().chunks(width.into());
    cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()).collect()
}

#[test]
fn all_green() {
    let lines = drawn(&model(green()), 80, 24);
    let expected = [
        "prod: GREEN   leader node2   epoch 42   (as node1 knows it)   12:00:00Z",
        "NODE   STATE  RAFT    APPLICATIONS",
        "node1  ready  voter   -",
        "node2  ready  leader  -",
        "node3  ready  voter   -",
        "MODULE  STATE   SHARES",
        "web     served  node1 ██░░░░ 33.3%  node2 ██░░░░ 33.3%  node3 ██░░░░ 33.3%",
        "EVENTS",
    ];
    assert_eq!(lines[..8], expected);
    assert_eq!(lines[8], "11:59:45Z node1 event 15");
    assert_eq!(lines[22], "11:59:59Z node1 event 29");
    assert_eq!(lines[23], format!("{:72}q: leave", "Next: nothing to do"));
}

#[test]
fn a_dead_node() {
    let lines = drawn(&model(red()), 80, 24);
    assert!(lines[0].starts_with("prod: RED, 2 things are not green   leader node2"), "{lines:#?}");
    assert!(lines[4].starts_with("node3  silent for 1s 234ms  voter"), "{lines:#?}");
    let shares = "web     24.4% served by nobody  node1 33.3%  node2 33.3%  node3 8.9%  nobody 24.4";
    assert_eq!(lines[6], shares.get(..80).unwrap());
    assert_eq!(lines[7], "NOT GREEN");
    assert_eq!(lines[8], "red node3: node_silent for 1s 234ms: node3 does not renew its lease");
    assert_eq!(lines[9], "red node1: no filter: its filter or guard is not in place: it accepts nothing");
    assert!(lines[23].starts_with("Next: farmctl events "), "{lines:#?}");
}

#[test]
fn colours_repeat_what_the_words_say() {
    let coloured = |colour| {
        let model = Model { colour, ..model(red()) };
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &model)).unwrap();
        terminal.backend().buffer().content().iter().filter(|cell| cell.fg != Color::Reset).count()
    };
    assert_eq!(coloured(false), 0);
    assert!(coloured(true) > 20);
    let texts = |colour| drawn(&Model { colour, ..model(red()) }, 80, 24);
    assert_eq!(texts(true), texts(false));
}

#[test]
fn a_daemon_that_says_nothing() {
    let mut model = model(green());
    model.now_ms = NOON + 2_900;
    assert!(drawn(&model, 80, 24)[0].starts_with("prod: GREEN "));
    model.now_ms = NOON + 12_300;
    let lines = drawn(&model, 80, 24);
    assert!(lines[0].starts_with("prod: was GREEN "), "{lines:#?}");
    assert_eq!(lines[1], "No news since 12:00:00Z (12 s): asking again");
    model.told(green(), model.now_ms);
    assert!(drawn(&model, 80, 24)[1].starts_with("NODE "));
    model.lost = true;
    assert_eq!(drawn(&model, 80, 24)[1], "No news since 12:00:12Z (0 s): asking again");
}

#[test]
fn a_narrow_one_has_the_most_important() {
    let lines = drawn(&model(red()), 40, 12);
    let expected = [
        "prod: RED   leader node2   12:00:00Z",
        "NODE   STATE                RAFT    APPL",
        "node1  no filter            voter   -",
        "… 2 lines more",
        "MODULE  STATE                   SHARES",
        "web     24.4% served by nobody  node1 33",
        "NOT GREEN",
        "red node3: node_silent for 1s 234ms:",
        "… 4 lines more",
        "EVENTS",
        "11:59:59Z node1 event 29",
        "Next: farmctl events            q: leave",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn any_size_is_drawn() {
    let mut many = red();
    many.nodes = (1..=32).map(|id| common::node(id, &format!("node{id}"))).collect();
    for model in [model(many), model(red()), Model::default()] {
        for (width, height) in [(1, 1), (7, 2), (10, 3), (40, 5), (80, 6), (300, 100)] {
            assert_eq!(drawn(&model, width, height).len(), usize::from(height));
        }
    }
}

#[test]
fn events_are_scrolled_and_stay_where_somebody_reads() {
    let mut model = model(green());
    let newest = |model: &Model| drawn(model, 80, 24)[22].clone();
    model.scroll(10);
    assert_eq!(newest(&model), "11:59:49Z node1 event 19");
    assert_eq!(drawn(&model, 80, 24)[7], "EVENTS (10 newer below)");
    model.happened(event(30));
    model.happened(event(30));
    assert_eq!(newest(&model), "11:59:49Z node1 event 19");
    model.scroll(-100);
    assert_eq!(newest(&model), "12:00:00Z node1 event 30");
    model.scroll(1000);
    assert_eq!(drawn(&model, 80, 24)[8], "11:59:30Z node1 event 0");
    (0..2000).for_each(|second| model.happened(event(100 + second)));
    assert_eq!(model.events.len(), 500);
}
