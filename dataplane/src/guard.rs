//! The guard: a static nftables table that drops what did not pass the filter.
//!
//! On accept the program overwrites the source MAC of the frame with a random one, the proof of passage. The table
//! accepts traffic for a virtual IP only from `lo` or with (interface, proof). It needs no process, no pin and no
//! device, so the virtual IP stays closed when the filter is lost. It is written positively, because `!=` on the
//! source MAC never matches on interfaces without Ethernet header. Priority −450 is before defragmentation and
//! connection tracking.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use thiserror::Error;

mod listing;

/// A MAC address.
pub type Mac = [u8; 6];

/// Default name of the table.
pub const TABLE: &str = "farm";

/// How long nft may take, in seconds: rulesets of others, however large, are replaced in less.
const NFT_SECONDS: u8 = 10;

/// What the table holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// The virtual IPs it protects.
    pub vips: BTreeSet<IpAddr>,
    /// Interface name and source MAC of frames that passed the filter there.
    pub proofs: BTreeSet<(String, Mac)>,
}

/// What was found in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuardState {
    /// Exactly what was installed.
    Intact {
        /// Frames it has dropped since it was installed: each one had come past the filter.
        dropped: u64,
    },
    /// There is no such table (`nft flush ruleset`, a firewall that was reloaded).
    Missing,
    /// Somebody changed it.
    Altered {
        /// What is not as installed.
        what: String,
    },
}

/// Why the guard could not be set or asked for.
#[derive(Debug, Error)]
pub enum GuardError {
    /// nft could not be run.
    #[error("cannot run nft ({0}); install it: apt-get install nftables")]
    Run(io::Error),
    /// nft did not end.
    #[error(
        "nft did not end within {NFT_SECONDS} s; see whether something else holds it up: nft list ruleset"
    )]
    Hung,
    /// nft refused.
    #[error("nft refused the guard table {table}: {message}")]
    Refused {
        /// The table.
        table: String,
        /// What nft wrote to its standard error.
        message: String,
    },
    /// nft's listing was not understood.
    #[error("nft's listing of table {table} cannot be read: {message}")]
    Listing {
        /// The table.
        table: String,
        /// What is wrong with it.
        message: String,
    },
    /// A name that cannot stand in a ruleset.
    #[error("{0:?} cannot be the name of a table or an interface")]
    Name(String),
}

/// The table, in the network namespace of the thread that calls. Dropping the value leaves the table in force, and a
/// clone speaks of the same one.
#[derive(Clone, Debug)]
pub struct Guard {
    table: String,
    rules: Rules,
}

impl Guard {
    /// Installs the table, replacing one of that name in a single transaction: there is no instant without it.
    ///
    /// # Errors
    /// [`GuardError`]; what was there before is then unchanged.
    pub fn install(table: &str, rules: Rules) -> Result<Self, GuardError> {
        check_name(table)?;
        let guard = Self { table: table.to_owned(), rules };
        guard.reinstall()?;
        Ok(guard)
    }

    /// Puts the guard in force before the filter is known: it protects `vips` and those of the table that it finds,
    /// and knows the proofs of that table, so that a daemon which restarts does not cut its own connections. Once the
    /// filter is taken up, [`Guard::update`] sets what holds.
    ///
    /// # Errors
    /// [`GuardError`]; what was there before is then unchanged.
    pub fn take_up(table: &str, vips: BTreeSet<IpAddr>) -> Result<Self, GuardError> {
        let mut rules = Self::left_behind(table)?.unwrap_or_default();
        rules.vips.extend(vips);
        Self::install(table, rules)
    }

    /// The rules of a table that somebody else put in force, such as a daemon that died; `None` where there is none.
    ///
    /// # Errors
    /// [`GuardError`] when the kernel could not be asked.
    pub fn left_behind(table: &str) -> Result<Option<Rules>, GuardError> {
        check_name(table)?;
        let any = Self { table: table.to_owned(), rules: Rules::default() };
        Ok(any.list()?.map(|listing| listing::rules(&listing)))
    }

    /// Replaces the rules, in one transaction.
    ///
    /// # Errors
    /// [`GuardError`]; the former rules then stay in force and are still expected by [`Guard::present`].
    pub fn update(&mut self, rules: Rules) -> Result<(), GuardError> {
        let next = Self { table: self.table.clone(), rules };
        next.reinstall()?;
        *self = next;
        Ok(())
    }

    /// Puts the table back as it was installed.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn reinstall(&self) -> Result<(), GuardError> {
        let ruleset = self.ruleset()?;
        self.expect_success(nft(&["-f", "-"], &ruleset)?).map(drop)
    }

    /// Compares rules and sets with what the kernel lists.
    ///
    /// # Errors
    /// [`GuardError`] when the kernel could not be asked; treat that as not present.
    pub fn present(&self) -> Result<GuardState, GuardError> {
        let listing = self.list()?;
        Ok(listing.map_or(GuardState::Missing, |listing| listing::compare(&listing, &self.rules)))
    }

    /// Removes the table: the last step of an orderly stop, after the virtual IPs are gone.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn remove(self) -> Result<(), GuardError> {
        // Adding it first makes the removal of a missing table succeed.
        let ruleset = format!("add table inet {0}\ndelete table inet {0}\n", self.table);
        self.expect_success(nft(&["-f", "-"], &ruleset)?).map(drop)
    }

    /// What is installed.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The table as nft lists it, `None` when there is none.
    fn list(&self) -> Result<Option<Value>, GuardError> {
        let tables = self.expect_success(nft(&["-j", "list", "tables", "inet"], "")?)?;
        if !listing::has_table(&self.parse(&tables)?, &self.table) {
            return Ok(None);
        }
        let table = self.expect_success(nft(&["-j", "list", "table", "inet", &self.table], "")?)?;
        self.parse(&table).map(Some)
    }

    fn ruleset(&self) -> Result<String, GuardError> {
        let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = self.rules.vips.iter().partition(|vip| vip.is_ipv4());
        let proofs = self.rules.proofs.iter().map(proof).collect::<Result<Vec<_>, _>>()?;
        Ok(format!(
            "add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n\
             set v4 {{ type ipv4_addr; {v4} }}\nset v6 {{ type ipv6_addr; {v6} }}\n\
             set proof {{ type ifname . ether_addr; {proofs} }}\n\
             chain guard {{ type filter hook prerouting priority -450; policy accept;\n\
             iifname \"lo\" accept\n\
             ip daddr @v4 iifname . ether saddr @proof accept\n\
             ip6 daddr @v6 iifname . ether saddr @proof accept\n\
             ip daddr @v4 counter drop\nip6 daddr @v6 counter drop\n}}\n}}\n",
            table = self.table,
            v4 = elements(&v4),
            v6 = elements(&v6),
            proofs = elements(&proofs),
        ))
    }

    fn expect_success(&self, output: Output) -> Result<Vec<u8>, GuardError> {
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(GuardError::Refused { table: self.table.clone(), message })
    }

    fn parse(&self, listing: &[u8]) -> Result<Value, GuardError> {
        serde_json::from_slice(listing)
            .map_err(|error| GuardError::Listing { table: self.table.clone(), message: error.to_string() })
    }
}

/// A draw of the proof of passage: a locally administered unicast MAC.
///
/// # Errors
/// Where the kernel gives no randomness.
pub fn draw_proof() -> io::Result<Mac> {
    let mut mac = Mac::default();
    getrandom::fill(&mut mac).map_err(io::Error::other)?;
    mac[0] = (mac[0] | 0x02) & 0xfe;
    Ok(mac)
}

/// `02:11:22:33:44:55`.
#[must_use]
pub fn format_mac(mac: &Mac) -> String {
    mac.iter().fold(String::with_capacity(17), |mut text, byte| {
        let colon = if text.is_empty() { "" } else { ":" };
        write!(text, "{colon}{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// Reads what [`format_mac`] writes.
fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

fn proof((interface, mac): &(String, Mac)) -> Result<String, GuardError> {
    check_name(interface)?;
    Ok(format!("\"{interface}\" . {}", format_mac(mac)))
}

fn elements<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let list: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("elements = {{ {} }};", list.join(", "))
}

/// Names stand in the ruleset as they are: nothing that nft could read as syntax, and no wildcard.
fn check_name(name: &str) -> Result<(), GuardError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
    let fits = (1..=31).contains(&name.len()) && name.chars().all(plain);
    if fits { Ok(()) } else { Err(GuardError::Name(name.to_owned())) }
}

/// Exit codes of timeout(1): 128 + SIGKILL, and those of a command that cannot be run or is not there.
const TIMEOUT_KILLED: i32 = 137;
const TIMEOUT_NOT_RUN: i32 = 126;
const TIMEOUT_NOT_FOUND: i32 = 127;

/// Runs nft in the network namespace of the calling thread.
fn nft(arguments: &[&str], input: &str) -> Result<Output, GuardError> {
    run("nft", NFT_SECONDS, arguments, input)
}

fn run(program: &str, seconds: u8, arguments: &[&str], input: &str) -> Result<Output, GuardError> {
    // `timeout` of the coreutils kills what hangs: the filter's owner must not wait for ever.
    let mut child = Command::new("timeout")
        .args(["--signal=KILL", &seconds.to_string(), program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(GuardError::Run)?;
    let mut stdin = child.stdin.take().expect("standard input was asked for above");
    // nft reads its input to the end before it writes, so nobody waits for the other.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(GuardError::Run)?;
    match output.status.code() {
        // It dies of the signal that it sends.
        None | Some(TIMEOUT_KILLED) => return Err(GuardError::Hung),
        Some(TIMEOUT_NOT_RUN | TIMEOUT_NOT_FOUND) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(GuardError::Run(io::Error::other(why)));
        }
        Some(_) => {}
    }
    match written {
        // It ended without reading: its message says why.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(GuardError::Run(error)),
        Ok(()) | Err(_) => Ok(output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_ended_and_what_is_missing_is_named() {
        assert!(matches!(run("sleep", 1, &["600"], ""), Err(GuardError::Hung)));
        match run("no-such-program", 1, &[], "") {
            Err(GuardError::Run(error)) => assert!(error.to_string().contains("no-such-program"), "{error}"),
            other => panic!("{other:?}"),
        }
        let output = run("cat", 1, &[], "read").unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"read"[..]));
    }
}
