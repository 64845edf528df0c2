//! Events for the system's journal, with fields that `journalctl` finds them by.
//!
//! The protocol is a datagram of `NAME=value` lines to a socket (systemd.io/JOURNAL_NATIVE_PROTOCOL), so that no crate
//! is needed. Nobody waits for journald: what it does not take at once is counted, and the next event says how many.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use farm_core::incident::priority;

use crate::journal::Record;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest value: what is longer would not fit a datagram with others.
const VALUE_MAX: usize = 8 << 10;

/// The way to journald.
#[derive(Debug)]
pub struct Journald {
    socket: UnixDatagram,
    at: PathBuf,
    lost: u64,
}

impl Journald {
    /// Where systemd runs this daemon and the standard error goes to the journal already; there it need not say events.
    #[must_use]
    pub fn of_system() -> Option<Self> {
        std::env::var_os("JOURNAL_STREAM")?;
        Self::at(Path::new(SOCKET))
    }

    /// To the socket at this path, if there is one.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let socket = path.exists().then(UnixDatagram::unbound)?.ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, at: path.to_owned(), lost: 0 })
    }

    /// Sends an event, if journald takes it at once.
    pub fn send(&mut self, record: &Record) {
        let datagram = datagram(record, self.lost);
        // Addressed anew each time: journald may have been restarted.
        match self.socket.send_to(&datagram, &self.at) {
            Ok(_) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
    }
}

fn datagram(record: &Record, lost: u64) -> Vec<u8> {
    let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
    let fields = [
        ("MESSAGE", record.text.clone()),
        ("PRIORITY", priority(&record.kind).to_string()),
        ("SYSLOG_IDENTIFIER", "farmd".into()),
        ("FARM_KIND", record.kind.clone()),
        ("FARM_RESOURCE", record.resource.clone()),
        ("FARM_NODE", number(record.node)),
        ("FARM_EPOCH", number(record.epoch)),
        ("FARM_INDEX", number(record.index)),
        ("FARM_EVENT", record.id.clone()),
        ("FARM_CAUSE", record.cause.clone()),
        ("FARM_LOST", number(lost)),
    ];
    let line = |(name, value): &(&str, String)| format!("{name}={}\n", in_a_line(value)).into_bytes();
    fields.iter().filter(|(_, value)| !value.is_empty()).flat_map(line).collect()
}

/// A line feed would begin another field.
fn in_a_line(value: &str) -> String {
    let mut line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(VALUE_MAX));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut datagram = [0; 4096];
        let length = socket.recv(&mut datagram).expect("an event");
        String::from_utf8_lossy(&datagram[..length]).lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_event_has_fields_and_the_priority_of_its_kind() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = dir.path().join("socket");
        let socket = UnixDatagram::bind(&at).expect("bound");
        let journal = Journal::open_to(dir.path(), Journald::at(&at));
        let id = journal.note(2, "process_down", "shop", "nginx ran once,\nPRIORITY=0", "");
        let event = received(&socket);
        let expected = [
            "MESSAGE=nginx ran once, PRIORITY=0",
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=farmd",
            "FARM_KIND=process_down",
            "FARM_RESOURCE=shop",
            "FARM_NODE=2",
            &format!("FARM_EVENT={id}"),
        ];
        assert_eq!(event, expected);
        let logged = Record {
            id: "log-7.0".into(),
            time_unix_ms: 1,
            node: 2,
            kind: "buckets_moved".into(),
            resource: "node3".into(),
            text: "é".repeat(9_000),
            cause: id,
            index: 7,
            epoch: 5,
        };
        journal.put(Record { text: "moved".into(), ..logged.clone() });
        let event = received(&socket);
        for field in ["FARM_INDEX=7", "FARM_EPOCH=5", "PRIORITY=6"] {
            assert!(event.iter().any(|line| line == field), "{event:?}");
        }
        assert!(datagram(&logged, 0).len() < VALUE_MAX + 1_000);
    }

    #[test]
    fn a_journald_that_reads_nothing_delays_nobody_and_is_told_how_much_it_missed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = dir.path().join("socket");
        assert!(Journald::at(&at).is_none(), "nobody listens");
        let socket = UnixDatagram::bind(&at).expect("bound");
        let mut journald = Journald::at(&at).expect("there");
        let record = Record {
            id: "n1-1".into(),
            time_unix_ms: 1,
            node: 1,
            kind: "leader".into(),
            resource: "cluster".into(),
            text: "x".repeat(1_000),
            cause: String::new(),
            index: 0,
            epoch: 0,
        };
        (0..5_000).for_each(|_| journald.send(&record));
        let lost = journald.lost;
        assert!(lost > 0, "the socket holds less");
        for _ in 0..5_000 - lost {
            received(&socket);
        }
        journald.send(&record);
        assert!(received(&socket).contains(&format!("FARM_LOST={lost}")));
        assert_eq!(journald.lost, 0);
        drop(socket);
        journald.send(&record);
        assert_eq!(journald.lost, 1, "a journald that has died");
    }
}
