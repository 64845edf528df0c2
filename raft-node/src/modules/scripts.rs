//! Runs the scripts of a module, and takes what they say.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farm_core::life::{Request, Run, Script as Which};
use farm_host::applog;
use farm_host::cgroup::Cgroup;
use farm_host::script::{ENTER, Outcome, Script};
use farm_module::Definition;
use farm_proto::v1;

use super::runs::{Of, Runs};

/// A log line is cut, and a flood thinned, so that a script that goes wild costs neither disk nor processor.
pub const LOG_LIMITS: applog::Limits =
    applog::Limits { file_bytes: 2 << 20, files: 4, line_bytes: 8 << 10, lines_per_second: 1_000 };

/// What a script may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A line for the log of the module.
    Log(String),
    /// The same, and an event.
    Error(String),
    /// Asks for something; counts as an automatic action, and is taken up when the running script has ended.
    Ask(Request),
    /// Counts one automatic action.
    CountLoop,
    /// Asks whether one more would be too many.
    CheckLoop,
    /// Forgets them.
    ResetLoop,
}

impl Verb {
    /// From the wire; `None` where it is none.
    #[must_use]
    pub fn parse(request: &v1::ScriptRequest) -> Option<Self> {
        let text = || request.text.clone();
        Some(match v1::ScriptVerb::try_from(request.verb).ok()? {
            v1::ScriptVerb::Unspecified => return None,
            v1::ScriptVerb::Log => Self::Log(text()),
            v1::ScriptVerb::Error => Self::Error(text()),
            v1::ScriptVerb::Stop => Self::Ask(Request::Stop),
            v1::ScriptVerb::Restart => Self::Ask(Request::Restart),
            v1::ScriptVerb::Stopstart => Self::Ask(Request::StopStart),
            v1::ScriptVerb::Incloop => Self::CountLoop,
            v1::ScriptVerb::Checkloop => Self::CheckLoop,
            v1::ScriptVerb::Resetloop => Self::ResetLoop,
        })
    }
}

/// Where and as what scripts run.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The module's name.
    pub module: String,
    /// This node's name.
    pub node: String,
    /// The files of its revision.
    pub files: PathBuf,
    /// What scripts may write.
    pub var: PathBuf,
    /// The application log.
    pub log: PathBuf,
    /// Everything that a script starts is in it.
    pub cgroup: PathBuf,
    /// The processes that write logs: they outlive a force stop, and the daemon.
    pub log_cgroup: PathBuf,
    /// Where `farmctl script` speaks to this daemon.
    pub socket: PathBuf,
    /// Shows that it is a script of the module.
    pub token: String,
    /// This daemon's program, which also pumps logs.
    pub program: PathBuf,
    /// Where it is counted how long they took.
    pub runs: Arc<Runs>,
}

impl Stage {
    /// Runs a script to its end. `Err` says what was wrong with it.
    pub async fn run(self, run: Run, definition: &Definition) -> Result<(), String> {
        let name = run.script.name();
        let program = self.files.join("bin").join(name);
        if !program.exists() {
            return Ok(());
        }
        let output =
            self.pump(name, definition).map_err(|e| format!("{name}: its log cannot be written: {e}"))?;
        let script = Script {
            program,
            arguments: run.arguments().map(OsString::from).collect(),
            environment: self.environment(definition),
            directory: self.files.clone(),
            cgroup: self.cgroup.clone(),
            output,
            limit: limit(&run, definition),
        };
        let begun = Instant::now();
        let outcome = script.run().await;
        let of = Of { module: self.module.clone(), script: name, ok: outcome == Outcome::Exited(0) };
        self.runs.add(of, begun.elapsed());
        match outcome {
            Outcome::Exited(0) => Ok(()),
            Outcome::Exited(code) => Err(format!("{name} ended with exit code {code}")),
            Outcome::Signalled(signal) => Err(format!("{name} was ended by signal {signal}")),
            Outcome::TimedOut => {
                let limit = humantime::format_duration(limit(&run, definition));
                Err(format!("{name} did not end within {limit}"))
            }
            Outcome::NotRun(why) => Err(format!("{name} cannot be run: {why}")),
        }
    }

    /// The write end of a pipe into the log. Its reader is a process of its own: what the script leaves running goes
    /// on writing when this daemon is no more.
    fn pump(&self, label: &str, definition: &Definition) -> std::io::Result<std::fs::File> {
        let (read, write) = std::io::pipe()?;
        let scripts = &definition.scripts;
        let mut pump = std::process::Command::new("/bin/sh");
        pump.args(["-c", ENTER])
            .arg(&self.log_cgroup)
            .arg(&self.program)
            .args(["applog", "--label", label])
            .args(["--size", &scripts.log_size.to_string(), "--files", &scripts.log_files.to_string()])
            .arg(&self.log)
            .stdin(read)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut child = pump.spawn()?;
        // It ends with the last writer; nobody waits for it, but somebody has to reap it.
        std::thread::Builder::new().name("farm-reap".into()).spawn(move || drop(child.wait()))?;
        Ok(std::fs::File::from(std::os::fd::OwnedFd::from(write)))
    }

    /// What scripts, and programs that check, find in their environment.
    pub fn environment(&self, definition: &Definition) -> Vec<(OsString, OsString)> {
        let vips: BTreeSet<String> = definition.services.iter().map(|(s, _)| s.vip.ip.to_string()).collect();
        let vips: Vec<String> = vips.into_iter().collect();
        let own: [(&str, OsString); 9] = [
            ("FARM_MODULE", self.module.clone().into()),
            ("FARM_NODE", self.node.clone().into()),
            ("FARM_ETC", self.files.clone().into()),
            ("FARM_BIN", self.files.join("bin").into()),
            ("FARM_VAR", self.var.clone().into()),
            ("FARM_VIPS", vips.join(" ").into()),
            ("FARM_TOKEN", self.token.clone().into()),
            ("FARM_SOCKET", self.socket.clone().into()),
            ("LC_ALL", "C.UTF-8".into()),
        ];
        let given = definition.env.iter().map(|(name, value)| (name.into(), value.into()));
        own.into_iter().map(|(name, value)| (name.into(), value)).chain(given).collect()
    }

    /// Ends everything that the module left running.
    pub async fn kill(self, limit: Duration) -> Result<(), String> {
        let failed =
            |error: std::io::Error| format!("what is left of {} cannot be ended: {error}", self.module);
        let group = Cgroup::at(&self.cgroup);
        group.kill().map_err(failed)?;
        match tokio::time::timeout(limit, group.emptied()).await {
            Ok(emptied) => emptied.map_err(failed),
            Err(_) => Err(format!("processes of {} are left although they were killed", self.module)),
        }
    }

    /// Writes one line of a script into the log.
    pub fn log_line(&self, text: &str, definition: &Definition) {
        let scripts = &definition.scripts;
        let limits = applog::Limits { file_bytes: scripts.log_size, files: scripts.log_files, ..LOG_LIMITS };
        if let Err(error) = applog::append(&self.log, "farmctl", text, &limits) {
            tracing::warn!(%error, log = %self.log.display(), "the log of a module cannot be written");
        }
    }
}

fn limit(run: &Run, definition: &Definition) -> Duration {
    let scripts = &definition.scripts;
    match run.script {
        Which::StopBoth if run.force => scripts.force,
        Which::StopBoth => scripts.stop,
        Which::Transition | Which::Prestart | Which::StartBoth | Which::Poststop => scripts.start,
    }
}
