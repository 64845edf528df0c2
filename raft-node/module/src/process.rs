//! The processes that a node watches.

use std::collections::BTreeSet;

use regex::RegexBuilder;

use crate::action::Action;
use crate::reader::{At, Reader, Table};

/// Watched processes of a module: each is looked for in the process table again and again.
pub const PROCESSES: usize = 64;
/// Bytes of a compiled regular expression: thousands of times what matches a command line.
const REGEX_BYTES: usize = 1 << 20;
/// Instances of one process; no machine runs more processes (`PID_MAX_LIMIT`).
const INSTANCES: u32 = 1 << 22;

/// Bytes of a process's name in the kernel (`TASK_COMM_LEN`, proc_pid_comm(5)).
const COMMAND: usize = 15;

/// Where processes are looked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Scope {
    /// Among those that the module's scripts started.
    #[default]
    Module,
    /// Among all of the host.
    Host,
}

/// What is looked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum What {
    /// Processes with this name of their program.
    Command(String, Scope),
    /// Processes whose command line matches this regular expression.
    Regex(String, Scope),
    /// A unit of systemd.
    Unit(String),
}

/// A watched process.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Process {
    /// Its name in the module.
    pub name: String,
    /// What is looked for.
    pub what: What,
    /// Fewer are too few.
    pub at_least: u32,
    /// More are too many.
    pub at_most: Option<u32>,
    /// What happens then.
    pub action: Action,
}

impl Process {
    /// Its name among all resources: `proc.server`.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("proc.{}", self.name)
    }
}

/// All `[[process]]`.
pub(crate) fn read<'t>(reader: &mut Reader<'t>, root: &mut Table<'t>) -> Vec<Process> {
    let tables = reader.tables(root, "process", PROCESSES);
    let (mut names, mut processes) = (BTreeSet::new(), Vec::new());
    for table in tables {
        let (process, name) = read_one(reader, table);
        if let Some(name) = name.filter(|name| !names.insert(name.value.clone())) {
            let fact = format!("two [[process]] are called {:?}", name.value);
            reader.found.line(name.line, fact, "give one of them another name");
        }
        processes.extend(process);
    }
    processes
}

fn read_one<'t>(reader: &mut Reader<'t>, mut table: Table<'t>) -> (Option<Process>, Option<At<String>>) {
    reader.need(&table, "name", "\"server\"");
    let name = reader.text(&mut table, "name").filter(|name| check_name(reader, "[[process]]", name));
    let what = read_what(reader, &mut table);
    let at_least = reader.number(&mut table, "at_least", 0..=INSTANCES).map_or(1, |n| n.value);
    let at_most = reader.number(&mut table, "at_most", 0..=INSTANCES);
    if let Some(At { value, line }) = at_most.as_ref().filter(|most| most.value < at_least) {
        let fact = format!("[[process]] at_most = {value} is less than at_least = {at_least}");
        reader.found.line(*line, fact, "raise at_most, or lower at_least");
    }
    let action = reader.choice(&mut table, "action", &Action::OF_APPLICATION).unwrap_or_default();
    reader.finish(table);
    let at_most = at_most.map(|most| most.value);
    let process = name.clone().zip(what).map(|(name, what)| Process {
        name: name.value,
        what,
        at_least,
        at_most,
        action,
    });
    (process, name)
}

/// A name stands in events and in rules: one word.
pub(crate) fn check_name(reader: &mut Reader<'_>, head: &str, name: &At<String>) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let good = (1..=63).contains(&name.value.len()) && name.value.chars().all(legal);
    if !good {
        let start: String = name.value.chars().take(60).collect();
        let fact = format!("{head} name = {start:?} is no name of one");
        reader.found.line(name.line, fact, "use 1 to 63 of A-Z a-z 0-9 . _ -");
    }
    good
}

fn read_what<'t>(reader: &mut Reader<'t>, table: &mut Table<'t>) -> Option<What> {
    let keys = ["command", "regex", "unit"];
    let given: Vec<&str> = keys.into_iter().filter(|key| table.contains(key)).collect();
    let [command, regex, unit] = keys.map(|key| reader.text(table, key));
    let scope_given = table.contains("scope");
    let scopes = [("module", Scope::Module), ("host", Scope::Host)];
    let scope = reader.choice(table, "scope", &scopes).unwrap_or_default();
    if given.len() != 1 {
        let given = if given.is_empty() { "none".into() } else { given.join(" and ") };
        let fact = format!("[[process]] needs exactly one of command, regex and unit; it has {given}");
        reader.found.line(table.line, fact, "keep one, as in command = \"nginx\"");
        return None;
    }
    let counted = ["at_least", "at_most"].into_iter().find(|key| table.contains(key));
    if let Some(key) = counted.filter(|_| given == ["unit"]) {
        let fact = format!("[[process]] {key} does not go with unit: it is up or not");
        reader.found.line(table.line, fact, format!("remove {key}"));
    }
    if scope_given && given == ["unit"] {
        let fact = "[[process]] scope does not go with unit: systemd knows the processes of a unit";
        reader.found.line(table.line, fact, "remove scope");
    }
    if let Some(command) = [&command, &unit].into_iter().flatten().find(|text| text.value.is_empty()) {
        let fact = format!("[[process]] {} = \"\" names nothing", given.join(""));
        reader.found.line(command.line, fact, "write what is to be watched");
    }
    if let Some(command) = command.as_ref().filter(|command| command.value.len() > COMMAND) {
        let fact = format!("[[process]] command = {:?} is longer than the kernel knows names", command.value);
        let remedy = format!("write its first {COMMAND} bytes, or use regex");
        reader.found.line(command.line, fact, remedy);
    }
    if let Some(regex) = &regex {
        check_regex(reader, regex);
    }
    let command = command.map(|text| What::Command(text.value, scope));
    let regex = regex.map(|text| What::Regex(text.value, scope));
    command.or(regex).or(unit.map(|text| What::Unit(text.value)))
}

fn check_regex(reader: &mut Reader<'_>, regex: &At<String>) {
    let fact = match RegexBuilder::new(&regex.value).size_limit(REGEX_BYTES).build() {
        Ok(_) if regex.value.is_empty() => "matches everything".into(),
        Ok(_) => return,
        Err(regex::Error::CompiledTooBig(_)) => "needs too much memory".into(),
        // The last line says why; those before show the expression again.
        Err(error) => format!("does not compile: {}", last_line(&error.to_string())),
    };
    let start: String = regex.value.chars().take(60).collect();
    let fact = format!("[[process]] regex = {start:?} {fact}");
    reader.found.line(regex.line, fact, "see https://docs.rs/regex for the form");
}

pub(crate) fn last_line(text: &str) -> String {
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    last.trim().trim_start_matches("error: ").to_owned()
}
