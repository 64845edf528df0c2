//! What the machine says of itself, by its own programs and files.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// A program that has not answered by then is left out.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where it is put, and what says it. None changes anything.
const COMMANDS: [(&str, &[&str]); 16] = [
    ("uname.txt", &["uname", "-a"]),
    ("os-release.txt", &["cat", "/etc/os-release"]),
    ("uptime.txt", &["cat", "/proc/uptime", "/proc/loadavg"]),
    ("memory.txt", &["cat", "/proc/meminfo"]),
    ("disks.txt", &["df", "-h"]),
    ("mounts.txt", &["cat", "/proc/mounts"]),
    ("addresses.txt", &["ip", "-details", "-statistics", "address"]),
    ("routes.txt", &["ip", "route", "show", "table", "all"]),
    ("neighbours.txt", &["ip", "neighbour"]),
    ("sockets.txt", &["ss", "-s"]),
    ("listening.txt", &["ss", "-lntup"]),
    ("ruleset.txt", &["nft", "list", "ruleset"]),
    ("bpf.txt", &["bpftool", "net"]),
    (
        "clock.txt",
        &[
            "cat",
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            "/proc/self/timens_offsets",
        ],
    ),
    ("dmesg.txt", &["dmesg"]),
    ("journal.txt", &["journalctl", "--no-pager", "--unit=farmd", "--lines=2000"]),
];

/// The names of all there is.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|(name, _)| *name)
}

/// What it says; `None` where there is nothing of the name.
///
/// # Errors
/// The program is not there, does not end, or says nothing but why it fails.
pub(super) async fn read(name: &str) -> Option<Result<Vec<u8>, String>> {
    let (_, words) = COMMANDS.iter().find(|(known, _)| *known == name)?;
    Some(run(words).await)
}

async fn run(words: &[&str]) -> Result<Vec<u8>, String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.map_err(|_| format!("{} did not end within {PATIENCE:?}", words.join(" ")))?;
    let output = output.map_err(|error| format!("{} cannot be run: {error}", words[0]))?;
    if output.stdout.is_empty() && !output.status.success() {
        return Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_is_told_and_what_is_not_says_why() {
        let told = read("uname.txt").await.expect("it is known").expect("every machine has it");
        assert!(told.starts_with(b"Linux "));
        assert!(read("shadow.txt").await.is_none(), "nothing but what is listed");
        assert!(run(&["no-such-program"]).await.unwrap_err().contains("cannot be run"));
        assert!(run(&["cat", "/no/such/file"]).await.unwrap_err().contains("No such file"));
    }
}
