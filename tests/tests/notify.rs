//! Somebody outside is told: once, by whoever speaks, and after all where it could not be delivered at first.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use farm_lab::{Mode, Place, shell};
use farm_tests::farm::{Farm, LIMIT};

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const PORT: u16 = 25;

/// A mail server on the client's machine, that keeps what it is given. While it is broken it takes nothing.
struct Mail {
    taken: Arc<Mutex<Vec<String>>>,
    broken: Arc<AtomicBool>,
}

impl Mail {
    fn start(farm: &Farm) -> Result<Self> {
        let listener =
            farm.namespace(Place::Client).run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
        let mail = Self { taken: Arc::default(), broken: Arc::default() };
        let (taken, broken) = (mail.taken.clone(), mail.broken.clone());
        // Ends with the test's process; nobody connects to it once the lab is gone.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (taken, broken) = (taken.clone(), broken.clone());
                std::thread::spawn(move || {
                    // Whoever breaks off has sent nothing.
                    let _ = receive(&stream, &taken, &broken);
                });
            }
        });
        Ok(mail)
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first mail whose subject has these words.
    fn await_mail(&self, words: &str) -> Result<String> {
        let is_it = |mail: &&String| mail.lines().any(|l| l.starts_with("Subject: ") && l.contains(words));
        shell::await_value(&format!("a mail says {words}"), LIMIT, || {
            Ok(self.taken().iter().find(is_it).cloned())
        })
        .with_context(|| format!("{:#?}", self.taken()))
    }
}

/// As much of RFC 5321 as a client needs.
fn receive(stream: &TcpStream, taken: &Mutex<Vec<String>>, broken: &AtomicBool) -> Result<()> {
    let mut out = stream;
    let mut lines = BufReader::new(stream).lines();
    if broken.load(Ordering::Relaxed) {
        writeln!(out, "421 not now\r")?;
        return Ok(());
    }
    writeln!(out, "220 mail\r")?;
    while let Some(line) = lines.next() {
        let line = line?;
        if line != "DATA" {
            writeln!(out, "250 well\r")?;
            continue;
        }
        writeln!(out, "354 go on\r")?;
        let text: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| line != ".").collect();
        taken.lock().unwrap_or_else(PoisonError::into_inner).push(text.join("\n"));
        writeln!(out, "250 taken\r")?;
    }
    Ok(())
}

/// A farm whose nodes tell the client's mail server, and a program, which writes into `directory`.
fn telling(prefix: &str, directory: &Path) -> Result<(Farm, Mail)> {
    let farm = Farm::unborn(prefix, Mode::Directed)?;
    let mail = Mail::start(&farm)?;
    for node in farm.nodes().collect::<Vec<_>>() {
        let path = farm.configure(node)?;
        let written = directory.join(node.to_string());
        let more = format!(
            "\n[notify]\nafter = \"1s\"\npause = \"2s\"\ncommand = [\"/bin/sh\", \"-c\", \"cat >> {}\"]\n\
             [notify.smtp]\nserver = \"10.77.0.50\"\ntls = \"none\"\nfrom = \"farm@example.org\"\n\
             to = [\"ops@example.org\"]\n",
            written.display()
        );
        let text = std::fs::read_to_string(&path)? + &more;
        std::fs::write(&path, text)?;
    }
    farm.run_farm()?;
    Ok((farm, mail))
}

#[test]
fn a_death_is_told_once_with_its_story_and_so_is_the_return() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (farm, mail) = telling("notify-death", directory.path())?;
    let victim = farm.others(farm.leader()?)[0];
    farm.kill_farmd(victim)?;
    let told = mail.await_mail(&format!("RED: {victim}: node_silent"))?;
    ensure!(
        told.contains("To: ops@example.org") && told.contains("Auto-Submitted: auto-generated"),
        "{told}"
    );
    ensure!(told.contains("farmctl why") && told.contains("does not renew its lease"), "{told}");
    farm.start_farmd(victim)?;
    mail.await_mail("GREEN again")?;
    let of_it = mail.taken().iter().filter(|mail| mail.contains("RED")).count();
    ensure!(of_it == 1, "{:#?}", mail.taken());
    // The program of whoever spoke has the same.
    let leader = farm.leader()?.to_string();
    let written = std::fs::read_to_string(directory.path().join(leader))?;
    ensure!(written.contains("node_silent") && written.contains("GREEN again"), "{written}");
    Ok(())
}

#[test]
fn the_death_of_the_node_that_speaks_is_told_by_the_next() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (farm, mail) = telling("notify-leader", directory.path())?;
    let led = farm.leader()?;
    farm.kill_farmd(led)?;
    mail.await_mail(&format!("{led}: node_silent"))?;
    Ok(())
}

#[test]
fn what_could_not_be_delivered_comes_when_the_server_is_back() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (farm, mail) = telling("notify-again", directory.path())?;
    let works = farm.farmctl(ONE, &["notify", "test"])?;
    ensure!(works.contains("smtp: taken") && works.contains("command: taken"), "{works}");
    ensure!(mail.await_mail("a test from node1")?.contains("Nothing is wrong"));

    mail.broken.store(true, Ordering::Relaxed);
    let fails = farm.farmctl(ONE, &["notify", "test"]);
    ensure!(fails.as_ref().is_err_and(|error| format!("{error:#}").contains("exit status: 8")), "{fails:?}");
    // Only mail is left, so that a message has no other way.
    let speaker = farm.leader()?;
    let victim = farm.others(speaker)[0];
    std::fs::create_dir(directory.path().join(speaker.to_string())).or_else(|_| {
        std::fs::remove_file(directory.path().join(speaker.to_string()))?;
        std::fs::create_dir(directory.path().join(speaker.to_string()))
    })?;
    farm.kill_farmd(victim)?;
    farm.await_event(speaker, "notify_failed", 0)?;
    let status = farm.await_status(speaker, "a state tells of it", LIMIT, |status| {
        status.conditions.iter().any(|c| c.code == "notify_failed")
    })?;
    ensure!(status.conditions.iter().any(|c| c.code == "node_silent"));
    mail.broken.store(false, Ordering::Relaxed);
    mail.await_mail("node_silent")?;
    farm.await_event(speaker, "notify_sent", 0)?;
    Ok(())
}

#[test]
fn a_daemon_without_anybody_to_tell_says_so() -> Result<()> {
    let farm = Farm::up("notify-nobody", Mode::Directed)?;
    let said = farm.farmctl(TWO, &["notify", "test"]);
    ensure!(said.as_ref().is_err_and(|error| format!("{error:#}").contains("names nobody")), "{said:?}");
    Ok(())
}
