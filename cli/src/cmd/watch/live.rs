//! `farmctl watch` on a terminal: what comes is taken into the model, and the model is drawn.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farm_proto::v1;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, try_init, try_restore};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{MissedTickBehavior, interval};

use super::{Opened, open, reopen, went_away};
use crate::args::Global;
use crate::client::{Daemon, ORDINARY, follow};
use crate::error::Error;
use crate::exit::Exit;
use crate::render::live::{Model, draw};

/// Events to begin with.
const EVENTS: u64 = 200;
/// Pace of the clock, and of the age of what is shown.
const TICK: Duration = Duration::from_millis(500);
/// What a page key scrolls.
const PAGE: isize = 10;
/// News that wait while the terminal is slow; then those who tell wait too.
const WAITING: usize = 64;

/// What the connection has to say.
enum News {
    State(Box<v1::StatusResponse>),
    Happened(Box<v1::Event>),
    Lost,
    /// It is given up.
    Ended(Error),
}

/// The terminal, given back as it was, whatever ends the command; a panic gives it back before it is told.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Self> {
        match try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // It may have got halfway.
                let _ = try_restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Without a terminal there is nothing to give back.
        let _ = self.0.show_cursor();
        let _ = try_restore();
    }
}

pub(super) async fn run(global: &Global, colour: bool) -> Result<Exit, Error> {
    // What keeps it from beginning is told on an ordinary screen.
    let opened = open(global).await?;
    let mut model = Model { colour, ..Model::default() };
    model.told(opened.1.clone(), now_ms());
    let (tell, news) = channel(WAITING);
    tokio::spawn(feed(global.clone(), opened, tell));
    show(model, news).await
}

async fn show(mut model: Model, mut news: Receiver<News>) -> Result<Exit, Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut screen, mut tick) = (Screen::take()?, interval(TICK));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut keys = keys();
    loop {
        tokio::select! {
            Some(first) = news.recv() => {
                take(&mut model, first)?;
                while let Ok(more) = news.try_recv() {
                    take(&mut model, more)?;
                }
            }
            key = keys.recv() => match key {
                Some(key) if pressed(&mut model, key) => {}
                Some(_) | None => return Ok(Exit::Done),
            },
            _ = tick.tick() => {}
            _ = terminate.recv() => return Ok(Exit::Done),
            _ = interrupt.recv() => return Ok(Exit::Done),
            _ = hangup.recv() => return Ok(Exit::Done),
        }
        model.now_ms = now_ms();
        screen.0.draw(|frame| draw(frame, &model))?;
    }
}

fn take(model: &mut Model, news: News) -> Result<(), Error> {
    match news {
        News::State(status) => model.told(*status, now_ms()),
        News::Happened(event) => model.happened(*event),
        News::Lost => model.lost = true,
        News::Ended(error) => return Err(error),
    }
    Ok(())
}

/// Does what a key says; `false`: leave.
fn pressed(model: &mut Model, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => return false,
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Up => model.scroll(1),
        KeyCode::Down => model.scroll(-1),
        KeyCode::PageUp => model.scroll(PAGE),
        KeyCode::PageDown => model.scroll(-PAGE),
        _ => {}
    }
    true
}

/// What is typed. The thread waits for the terminal, which nothing but the end of the program ends.
fn keys() -> Receiver<KeyEvent> {
    let (tell, told) = channel(WAITING);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if let Event::Key(key) = event
                && key.kind != KeyEventKind::Release
                && tell.blocking_send(key).is_err()
            {
                return;
            }
        }
    });
    told
}

/// Tells what the daemon tells, also the next one that answers there.
async fn feed(global: Global, mut opened: Opened, tell: Sender<News>) {
    loop {
        let Err(error) = told(&global, opened, &tell).await else { return };
        let again = match went_away(error) {
            Ok(_) if tell.send(News::Lost).await.is_err() => return,
            Ok(_) => reopen(&global).await,
            Err(error) => Err(error),
        };
        match again {
            Ok(again) => opened = again,
            Err(error) => {
                // Nobody listens: it is over anyway.
                let _ = tell.send(News::Ended(error)).await;
                return;
            }
        }
    }
}

/// Until the daemon goes away; well ended when nobody listens any more.
async fn told(global: &Global, (mut states, first): Opened, tell: &Sender<News>) -> Result<(), Error> {
    let daemon = Daemon::connect(global).await?;
    let request = v1::EventsRequest { follow: true, last: EVENTS, all: true, ..v1::EventsRequest::default() };
    if tell.send(News::State(Box::new(first))).await.is_err() {
        return Ok(());
    }
    let mut events = daemon.call(ORDINARY, async |mut c| c.events(request).await).await?;
    loop {
        let news = tokio::select! {
            state = follow(&mut states) => News::State(Box::new(state?)),
            event = follow(&mut events) => News::Happened(Box::new(event?)),
        };
        if tell.send(news).await.is_err() {
            return Ok(());
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
