//! A module as its files define it.

use core::time::Duration;
use std::collections::BTreeMap;

use farm_core::limits;
use farm_core::model::{Mode, ModuleKind, ModuleName, Service, Weight, is_name};
use farm_core::resource::Health;
use farm_core::rule::{self, Condition};
use farm_core::time::Span;

use crate::action::Action;
use crate::check::Check;
use crate::files::{FILE_BYTES, File, Files};
use crate::finding::{Finding, Findings, SETTINGS, WHOLE};
use crate::process::Process;
use crate::rule::Rule;
use crate::settings;
use crate::tree::{self, BIN};

/// The scripts in `bin/` that Farm calls; all others are helpers of these.
pub const CALLED: [&str; 5] = ["prestart", "start_both", "stop_both", "poststop", "transition"];

/// Restarts are counted over a day when nothing is said.
const LOOP_INTERVAL: Span = Span::seconds(24 * 3600);

/// What a node does with a module when it boots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Boot {
    /// As it was before.
    #[default]
    Auto,
    /// Starts it.
    On,
    /// Leaves it stopped.
    Off,
}

/// How scripts are run.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Scripts {
    /// Longest run of `prestart` and `start_both`.
    pub start: Duration,
    /// Longest run of `stop_both` and `poststop`.
    pub stop: Duration,
    /// Longest run of `stop_both force`.
    pub force: Duration,
    /// Bytes of a log of their output, before the next one is begun.
    pub log_size: u64,
    /// Logs that are kept.
    pub log_files: u32,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(300),
            stop: Duration::from_secs(300),
            force: Duration::from_secs(60),
            log_size: 2 << 20,
            log_files: 4,
        }
    }
}

/// A module: what its files say, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    /// Its name, which is that of the directory.
    pub name: ModuleName,
    /// Kind.
    pub kind: ModuleKind,
    /// What a node does with it at boot.
    pub boot: Boot,
    /// Restarts within [`Self::loop_interval`] after which a node gives up.
    pub maxloop: u32,
    /// The time in which restarts are counted; zero: since ever.
    pub loop_interval: Span,
    /// How long connections may stay after a planned change; `None`: nothing was said.
    pub drain: Option<Span>,
    /// Variables of the scripts, besides those of Farm.
    pub env: BTreeMap<String, String>,
    /// How scripts are run.
    pub scripts: Scripts,
    /// Services, and how frames reach their virtual IP.
    pub services: Vec<(Service, Mode)>,
    /// Weights by node; others have [`Weight::DEFAULT`].
    pub weights: BTreeMap<String, Weight>,
    /// Processes that are watched.
    pub processes: Vec<Process>,
    /// What else is looked at.
    pub checks: Vec<Check>,
    /// What follows from how all that is, besides each one's own action.
    pub rules: Vec<Rule>,
    /// The files, `module.toml` among them.
    pub files: Files,
}

impl Definition {
    /// Reads the files of module `name`.
    ///
    /// # Errors
    /// Everything that is wrong, by file and line; at most a hundred findings.
    pub fn parse(name: &str, files: Files) -> Result<Self, Vec<Finding>> {
        let mut found = Findings::default();
        check_name(name, &mut found);
        tree::check(&files, &mut found);
        let mut definition = Self::empty(name, ModuleKind::Farm);
        let watches = text(&files, &mut found)
            .and_then(|text| settings::read(text, &files, &mut definition, &mut found));
        tree::check_scripts(&files, watches, &mut found);
        definition.files = files;
        found.or(Some(definition))
    }

    /// A module that says nothing.
    pub(crate) fn empty(name: &str, kind: ModuleKind) -> Self {
        Self {
            name: ModuleName(name.into()),
            kind,
            boot: Boot::Auto,
            maxloop: 3,
            loop_interval: LOOP_INTERVAL,
            drain: None,
            env: BTreeMap::new(),
            scripts: Scripts::default(),
            services: Vec::new(),
            weights: BTreeMap::new(),
            processes: Vec::new(),
            checks: Vec::new(),
            rules: Vec::new(),
            files: Files::default(),
        }
    }

    /// Whether it starts and stops something; otherwise it is traffic only.
    #[must_use]
    pub fn has_application(&self) -> bool {
        self.files.0.keys().any(|path| path.starts_with(BIN))
    }

    /// All rules: each process's and each check's own, in their order, then those that were written.
    #[must_use]
    pub fn all_rules(&self) -> Vec<rule::Rule> {
        let own = |name: String, action: Action| rule::Rule {
            condition: Condition::is(&name, Health::Down),
            name,
            request: action.request(),
        };
        let processes = self.processes.iter().map(|process| own(process.resource(), process.action));
        let checks = self.checks.iter().map(|check| own(check.resource(), check.action));
        let written = self.rules.iter().map(|written| rule::Rule {
            name: written.name.clone(),
            condition: written.condition.clone(),
            request: written.action.request(),
        });
        processes.chain(checks).chain(written).collect()
    }

    /// The script `name` of `bin/`.
    #[must_use]
    pub fn script(&self, name: &str) -> Option<&File> {
        self.files.0.get(&format!("{BIN}{name}"))
    }
}

fn check_name(name: &str, found: &mut Findings) {
    if !is_name(name) {
        let most = limits::NAME;
        let fact =
            format!("{name:?} is no module name: 1 to {most} of a-z 0-9 -, a letter first, no - at the end");
        found.file(WHOLE, fact, "rename the directory of the module");
    }
}

/// The text of `module.toml`.
fn text<'f>(files: &'f Files, found: &mut Findings) -> Option<&'f str> {
    let Some(file) = files.0.get(SETTINGS) else {
        found.file(SETTINGS, "the file is missing", "write it; its least is: kind = \"farm\"");
        return None;
    };
    // A longer one is found with the other files.
    let bytes = Some(&file.bytes).filter(|bytes| bytes.len() <= FILE_BYTES)?;
    match core::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let fact = format!("byte {} is not UTF-8", error.valid_up_to() + 1);
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            found.line(u32::try_from(line).unwrap_or(u32::MAX), fact, "save the file as UTF-8");
            None
        }
    }
}
