//! A program that is told: the message on its standard input, the subject in `FARM_SUBJECT`.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// One that takes longer is ended, with all it started.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of what it said about its failure is told.
const SAID_MAX: usize = 200;

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(Vec<String>);

impl Command {
    /// Checks what is written; no words are no program.
    ///
    /// # Errors
    /// A path that is not absolute.
    pub fn check(words: Vec<String>) -> Result<Option<Self>, String> {
        match words.first() {
            None => Ok(None),
            Some(program) if program.starts_with('/') => Ok(Some(Self(words))),
            Some(program) => Err(format!("[notify] command: {program} is not an absolute path")),
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be run, fails, or takes too long.
    pub async fn run(&self, subject: &str, body: &str) -> Result<(), String> {
        let mut command = tokio::process::Command::new(&self.0[0]);
        command.args(&self.0[1..]).env("FARM_SUBJECT", subject).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("{} cannot be run: {error}", self.0[0]))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let input = child.stdin.take();
        let text = format!("{subject}\n\n{body}");
        let run = async {
            if let Some(mut input) = input {
                // One that does not read it is none the worse.
                let _ = input.write_all(text.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let ended = timeout(PATIENCE, run).await;
        if let Some(group) = group {
            // What it left behind would be there for ever; mostly there is nothing.
            let _ = killpg(group, Signal::SIGKILL);
        }
        let output =
            ended.map_err(|_| format!("it did not end within {PATIENCE:?}"))?.map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(SAID_MAX).collect();
        Err(format!("{}: {said}", output.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        Command(["/bin/sh", "-c", script].map(str::to_owned).into())
    }

    #[tokio::test]
    async fn it_reads_the_message_and_what_it_says_of_itself_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("told");
        let command = shell(&format!("{{ echo \"$FARM_SUBJECT\"; cat; }} > {}", file.display()));
        command.run("subject", "body\n").await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "subject\nsubject\n\nbody\n");
        let failed = shell("echo no paper >&2; exit 3").run("s", "b").await.unwrap_err();
        assert!(failed.contains("exit status: 3") && failed.contains("no paper"), "{failed}");
        assert!(Command(vec!["/no/such".into()]).run("s", "b").await.unwrap_err().contains("cannot be run"));
    }
}
