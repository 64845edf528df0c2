//! Telling somebody outside: by mail, by a program. One node speaks for the cluster, the leader; a node that knows no leader
//! speaks for itself. What is worth telling, and when, is decided by [`farm_core::notice`].
//!
//! Tasks owned: one, of the member, behind everything that keeps clients served.

mod command;
mod smtp;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farm_core::notice::{Message, Notices, Open, Patience};
use farm_core::time::{BootTime, Span};
use farm_dataplane::clock::boot_now;
use farm_proto::v1;
use futures::future::join_all;
use serde::Deserialize;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::{events, status};
use crate::journal::now_ms;
use crate::member::Member;

pub use command::Command;
pub use smtp::{Smtp, SmtpLines};

/// How often it is looked whether something is not green.
const EVERY: Duration = Duration::from_secs(1);
/// Events of this node that are told by themselves: what they say is in no condition that lasts.
const CRITICAL: [&str; 6] = [
    "keeper_failed",
    "restart_failed",
    "generation_conflict",
    "drill_began",
    "drill_failed",
    "module_unusable",
];

/// `[notify]` of farmd.toml, as it is written.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Lines {
    command: Vec<String>,
    smtp: Option<SmtpLines>,
    after: Option<String>,
    pause: Option<String>,
    yellow: bool,
}

/// How somebody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By mail.
    Smtp(Smtp),
    /// By a program.
    Command(Command),
}

impl Way {
    /// Tells it; what came of it.
    async fn tell(&self, subject: &str, body: &str) -> v1::NotifyWay {
        let (way, done) = match self {
            Self::Smtp(smtp) => ("smtp", smtp.send(subject, body).await),
            Self::Command(command) => ("command", command.run(subject, body).await),
        };
        v1::NotifyWay { way: way.into(), failed: done.err().unwrap_or_default() }
    }
}

/// Whom to tell, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyConfig {
    /// In all of these ways.
    pub ways: Vec<Way>,
    /// When.
    pub patience: Patience,
    /// Also what ends by itself.
    pub yellow: bool,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        let patience = Patience { after: Span::seconds(5), pause: Span::seconds(60) };
        Self { ways: Vec::new(), patience, yellow: false }
    }
}

impl NotifyConfig {
    /// Checks what is written.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn check(lines: Lines) -> Result<Self, String> {
        let usual = Self::default();
        let span = |name: &str, text: Option<String>, usual: Span| {
            let Some(text) = text else { return Ok(usual) };
            let parsed = humantime::parse_duration(&text);
            parsed
                .map(|d| Span(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
                .map_err(|_| format!("[notify] {name} = \"{text}\" is not a length of time: 5s, 2m"))
        };
        let after = span("after", lines.after, usual.patience.after)?;
        let pause = span("pause", lines.pause, usual.patience.pause)?;
        let smtp = lines.smtp.map(Smtp::check).transpose()?.map(Way::Smtp);
        let command = Command::check(lines.command)?.map(Way::Command);
        Ok(Self {
            ways: smtp.into_iter().chain(command).collect(),
            patience: Patience { after, pause },
            yellow: lines.yellow,
        })
    }

    /// Tells it in every way at once; what each said.
    async fn deliver(&self, subject: &str, body: &str) -> Vec<v1::NotifyWay> {
        join_all(self.ways.iter().map(|way| way.tell(subject, body))).await
    }
}

/// What others may know of it.
#[derive(Debug, Default)]
pub struct Told {
    open: Mutex<Vec<Open>>,
    trouble: Mutex<Option<String>>,
}

impl Told {
    /// What this node has told as open.
    #[must_use]
    pub fn open(&self) -> Vec<Open> {
        lock(&self.open).clone()
    }

    /// Why the last message was not delivered in every way.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a message for a test, and says what came of it.
pub async fn test(member: &Member) -> v1::NotifyTestResponse {
    let (node, cluster) = (&member.config.name, &member.snapshot().state.name);
    let subject = format!("[farm {cluster}] a test from {node}");
    let body = format!("This is how {node} would tell that something is not green. Nothing is wrong.\n");
    v1::NotifyTestResponse { ways: member.config.notify.deliver(&subject, &body).await }
}

/// Looks, and tells; ends with the member.
pub async fn run(member: Arc<Member>) {
    let config = member.config.notify.clone();
    if config.ways.is_empty() {
        return;
    }
    let mut notices = Notices::new(config.patience);
    let (_, mut happened) = member.journal.tail(0);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut spoke = false;
    loop {
        ticks.tick().await;
        loop {
            match happened.try_recv() {
                Ok(event) if CRITICAL.contains(&event.kind.as_str()) => notices.note(&event.text),
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return,
            }
        }
        let speaks = member.role().leader.is_none_or(|leader| leader == member.me);
        let open = open(&member, speaks, config.yellow).await;
        if speaks {
            if !spoke {
                notices.adopt(told_by_others(&member).await);
            }
            notices.look(BootTime(boot_now()), &open);
        } else {
            notices.listen(&open);
        }
        spoke = speaks;
        if let Some(message) = notices.due(BootTime(boot_now())) {
            tell(&member, &mut notices, &message).await;
        }
        *lock(&member.told.open) = notices.told().cloned().collect();
    }
}

/// What is not green: of the whole cluster where this node speaks for it, else what it needs to forget what it told.
async fn open(member: &Member, speaks: bool, yellow: bool) -> Vec<Open> {
    if !speaks && member.told.open().is_empty() {
        return Vec::new();
    }
    let status = status::of(member).await;
    let open = farm_view::Open::all(&status).into_iter().map(|open| Open {
        red: open.level == farm_view::Level::Red,
        resource: open.resource,
        word: open.word,
        cause: open.cause,
        next: open.next,
    });
    // That nobody could be told is no message to send.
    open.filter(|open| (open.red || yellow) && open.word != "notify_failed").collect()
}

/// What the others have told as open, as far as they answer: who spoke before may be one of them.
async fn told_by_others(member: &Member) -> Vec<Open> {
    let nodes: Vec<_> =
        member.snapshot().state.nodes.keys().copied().filter(|node| *node != member.me).collect();
    let looks = join_all(nodes.into_iter().map(|node| member.look(node))).await;
    let told = looks.into_iter().flatten().flat_map(|look| look.told);
    told.map(|c| Open { resource: c.resource, word: c.code, red: !c.passing, cause: c.cause, next: c.next })
        .collect()
}

async fn tell(member: &Member, notices: &mut Notices, message: &Message) {
    let cluster = member.snapshot().state.name.clone();
    let about = message.new.first().or(message.over.first()).or(message.passed.first());
    let about = about.map(|open| open.resource.clone()).unwrap_or_default();
    let story = events::why(member, v1::WhyRequest { about, at_ms: 0 }).await.map(|why| why.lines);
    let subject = message.subject(&cluster);
    let body = message.body(&member.config.name, &story.unwrap_or_default());
    let ways = member.config.notify.deliver(&subject, &body).await;
    let failed: Vec<String> =
        ways.iter().filter(|w| !w.failed.is_empty()).map(|w| format!("{}: {}", w.way, w.failed)).collect();
    let now = BootTime(boot_now());
    // One way that works is enough; the other one is not worth telling everything twice.
    if failed.len() < ways.len() {
        notices.delivered(now, message);
        member.note("notify_sent", format!("told: {subject}"));
    } else {
        notices.failed(now);
    }
    let trouble = (!failed.is_empty()).then(|| failed.join("; "));
    let before = std::mem::replace(&mut *lock(&member.told.trouble), trouble.clone());
    if let Some(trouble) = trouble.filter(|_| before.is_none()) {
        member.note("notify_failed", format!("could not tell \"{subject}\" at {}: {trouble}", now_ms()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<NotifyConfig, String> {
        NotifyConfig::check(toml::from_str(text).map_err(|e| e.to_string())?)
    }

    #[test]
    fn what_is_written_is_checked_at_once() {
        let good = "command = [\"/bin/true\"]\nafter = \"10s\"\n[smtp]\nserver = \"mail.example\"\ntls = \"none\"\n\
                    from = \"farm@example.org\"\nto = [\"ops@example.org\"]\n";
        let config = check(good).unwrap();
        assert_eq!(config.patience.after, Span::seconds(10));
        assert!(config.ways.len() == 2 && NotifyConfig::default().ways.is_empty());
        for (bad, says) in [
            ("after = \"soon\"", "[notify] after"),
            ("command = [\"tell\"]", "absolute"),
            ("comand = []", "unknown field"),
            ("[smtp]\nserver = \"m\"\nfrom = \"farm\"\nto = [\"a@b.c\"]", "from = \"farm\""),
            ("[smtp]\nserver = \"m\"\nfrom = \"a@b.c\"\nto = []", "nobody"),
            ("[smtp]\nserver = \"m\"\nfrom = \"a@b.c\"\nto = [\"a@b.c\"]\nuser = \"x\"", "password_file"),
            ("[smtp]\nserver = \"m\"\nfrom = \"a@b.c\"\nto = [\"a@b.c\"]\ntls = \"maybe\"", "maybe"),
        ] {
            let error = check(bad).expect_err(bad);
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
