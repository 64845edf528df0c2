//! Looks names up as the C library does, in a process of its own: that call blocks for as long as name servers are
//! silent, and only a process can be ended meanwhile.

use std::net::IpAddr;
use std::process::{Output, Stdio};

use tokio::process::Command;

use super::{Found, Limit, bad, unknown, words};
use crate::helper::LOOKUP;

/// Of the C library's own package; asks for all addresses, best first (RFC 6724), and prints each for every socket type.
const PROGRAM: &str = "getent";
/// No check has the time for more.
const ADDRESSES: usize = 16;
/// Exit status where there is no such name (getent(1)).
const NONE: i32 = 2;

/// The addresses of `name`, at least one.
pub(super) async fn lookup(name: &str, limit: Limit) -> Found<Vec<IpAddr>> {
    lookup_by(Command::new(PROGRAM), name, limit).await
}

async fn lookup_by(mut command: Command, name: &str, limit: Limit) -> Found<Vec<IpAddr>> {
    command.args(LOOKUP).arg(name).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let asked = async {
        let failed = |error| format!("{name} cannot be looked up: {PROGRAM}: {}", words(&error));
        command.output().await.or_else(|error| unknown(failed(error)))
    };
    let output = limit.of(asked, || format!("the name {name} was not resolved within {limit}")).await?;
    read(name, &output)
}

fn read(name: &str, output: &Output) -> Found<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        // A link-local address with its interface is none that can be used without.
        if let Some(ip) = line.split_whitespace().next().and_then(|ip| ip.parse().ok())
            && !addresses.contains(&ip)
        {
            addresses.push(ip);
        }
    }
    addresses.truncate(ADDRESSES);
    match (output.status.code(), addresses.is_empty()) {
        (Some(0), false) => Ok(addresses),
        (Some(0 | NONE), _) => bad(format!("the name {name} has no address, or no name server knows")),
        _ => unknown(format!("{name} cannot be looked up: {PROGRAM} ended with {}", output.status)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use super::super::Finding;
    use super::*;

    fn shell(text: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", text]);
        shell
    }

    async fn asked(text: &str, limit: Duration) -> Found<Vec<IpAddr>> {
        lookup_by(shell(text), "db", Limit::new(limit)).await
    }

    #[tokio::test]
    async fn every_address_is_found_once_and_best_first() {
        let said = "echo '2001:db8::1 STREAM db'; echo '2001:db8::1 DGRAM'; echo 'fe80::1%eth0 STREAM'; echo '192.0.2.1 RAW'";
        let found = asked(said, Limit::LONGEST).await.unwrap();
        assert_eq!(found, ["2001:db8::1", "192.0.2.1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        let all = asked("for i in $(seq 100); do echo 192.0.2.$i; done", Limit::LONGEST).await.unwrap();
        assert_eq!(all.len(), ADDRESSES);
    }

    #[tokio::test]
    async fn no_such_name_is_bad_and_no_lookup_is_unknown() {
        assert!(matches!(asked("exit 2", Limit::LONGEST).await, Err(Finding::Bad(_))));
        assert!(matches!(asked("exit 0", Limit::LONGEST).await, Err(Finding::Bad(_))));
        assert!(matches!(asked("echo 192.0.2.1; exit 1", Limit::LONGEST).await, Err(Finding::Unknown(_))));
        let missing = lookup_by(Command::new("/no/such/program"), "db", Limit::new(Limit::LONGEST)).await;
        assert!(matches!(missing, Err(Finding::Unknown(_))), "{missing:?}");
    }

    /// Silent name servers would hold the C library's call for half a minute.
    #[tokio::test]
    async fn a_lookup_that_hangs_is_ended_with_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let text = format!("echo $$ > {}; exec sleep 600", pid.display());
        let late = asked(&text, Duration::from_secs(2)).await;
        assert_eq!(late, bad("the name db was not resolved within 2s"));
        let pid = Pid::from_raw(fs::read_to_string(pid).unwrap().trim().parse().unwrap());
        // Killed with the future, and reaped by the runtime at its next turn.
        while kill(pid, None) != Err(Errno::ESRCH) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
