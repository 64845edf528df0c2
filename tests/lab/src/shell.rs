//! Other programs, run to their end, with their complaint in the error.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How often a condition that cannot be awaited is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs `command` and returns what it printed.
///
/// # Errors
/// It cannot be started, or it failed: then with what it wrote to stderr.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| missing(command))?;
    check(command, &output)
}

/// As [`run`], with `input` on its stdin.
///
/// # Errors
/// As [`run`].
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| missing(command))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // A program that refuses early closes its stdin: its own message says more than the broken pipe.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let printed = check(command, &output)?;
    written.with_context(|| format!("writing to {command:?}"))?;
    Ok(printed)
}

fn check(command: &Command, output: &Output) -> Result<String> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}): {}", output.status, complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing(command: &Command) -> String {
    format!("cannot start {:?}: scripts/setup.sh installs what the lab needs", command.get_program())
}

/// Waits until `probe` gives a value, and no longer than `limit`.
///
/// # Errors
/// `probe` failed, or the time is up: then `what` was not reached.
pub fn await_value<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("not within {} ms: {what}", limit.as_millis());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
