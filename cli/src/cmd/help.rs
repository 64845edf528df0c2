//! `farmctl help`: what a code means, or how a command is used.

use clap::{Args, CommandFactory};
use serde::Serialize;

use crate::args::Cli;
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;

/// The page of all codes, as operators read it.
const CODES: &str = include_str!("../../../docs/operate/codes.md");
/// The page of doctor's checks.
const CHECKS: &str = include_str!("../../../docs/operate/doctor.md");
/// Codes that are offered where the one that was asked for does not exist.
const OFFERED: usize = 5;

/// What a code, or a check of doctor, means and what to do: farmctl help node_silent. Or how a command is used: farmctl
/// help module apply.
#[derive(Debug, Args)]
pub struct Help {
    /// A code, a check, or a command
    #[arg(value_name = "CODE|COMMAND")]
    words: Vec<String>,
}

/// What is known of a code.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Entry {
    code: String,
    /// Where it comes from.
    from: String,
    means: String,
    /// What to do.
    remedy: String,
}

pub(super) fn run(help: &Help, out: &mut Output<'_>) -> Result<Exit, Error> {
    if let [word] = help.words.as_slice()
        && let Some(entry) = entries().find(|entry| entry.code == *word)
    {
        out.show(&entry, || shown(&entry))?;
        return Ok(Exit::Done);
    }
    let usage = usage(&help.words).ok_or_else(|| unknown(&help.words))?;
    out.text(&usage)?;
    Ok(Exit::Done)
}

fn entries() -> impl Iterator<Item = Entry> {
    let code = |cells: Vec<String>| {
        let [code, from, means, remedy] = cells.try_into().ok()?;
        entry(&code, from, &means, &remedy)
    };
    let check = |cells: Vec<String>| {
        let [check, means, remedy] = cells.try_into().ok()?;
        entry(&check, "doctor".to_owned(), &means, &remedy)
    };
    rows(CODES).filter_map(code).chain(rows(CHECKS).filter_map(check))
}

/// The cells of a page's tables.
fn rows(page: &'static str) -> impl Iterator<Item = Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    page.lines().filter(|line| line.starts_with("| `")).map(cells)
}

fn entry(code: &str, from: String, means: &str, remedy: &str) -> Option<Entry> {
    let code = code.strip_prefix('`')?.strip_suffix('`')?.to_owned();
    Some(Entry { code, from, means: plain(means), remedy: plain(remedy) })
}

/// Without the marks of the page.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

fn shown(entry: &Entry) -> String {
    let Entry { code, from, means, remedy } = entry;
    format!("{code} ({from})\n  means: {means}\n  what to do: {remedy}\n")
}

/// The help of the command that the words name.
fn usage(words: &[String]) -> Option<String> {
    let mut command = Cli::command();
    command.build();
    for word in words {
        command = command.find_subcommand(word)?.clone();
    }
    Some(command.render_long_help().to_string())
}

fn unknown(words: &[String]) -> Problem {
    let asked = words.join(" ");
    let parts: Vec<&str> = asked.split(['_', ' ', '-']).filter(|part| part.len() > 2).collect();
    let like = |entry: &Entry| parts.iter().any(|part| entry.code.contains(part));
    let offered: Vec<String> = entries().filter(like).map(|entry| entry.code).take(OFFERED).collect();
    let offered =
        if offered.is_empty() { String::new() } else { format!("; there are {}", offered.join(", ")) };
    let fact = format!("{asked:?} is neither a code nor a command{offered}");
    Problem::new(Exit::Usage, "unknown_topic", fact, "farmctl --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(words: &str, json: bool) -> Result<String, Error> {
        let words = words.split_whitespace().map(str::to_owned).collect();
        let mut text = Vec::new();
        run(&Help { words }, &mut Output::plain(&mut text, json))?;
        Ok(String::from_utf8(text).expect("UTF-8"))
    }

    #[test]
    fn every_row_of_the_page_is_found() {
        let codes = rows(CODES).count();
        let checks = rows(CHECKS).filter(|cells| cells.len() == 3).count();
        assert!(codes > 100 && checks > 15, "only {codes} and {checks}");
        assert_eq!(entries().count(), codes + checks, "a row that is not understood");
        for entry in entries() {
            let text = help(&entry.code, false).expect("a code");
            assert!(
                text.starts_with(&format!("{} (", entry.code)) && text.contains("what to do: "),
                "{text}"
            );
            assert!(!text.contains('`'), "{text}");
        }
    }

    #[test]
    fn a_check_of_doctor_is_known() {
        assert!(help("clock_slew", false).expect("a check").starts_with("clock_slew (doctor)\n"));
    }

    #[test]
    fn a_code_comes_before_a_check_of_its_name() {
        assert!(help("time_namespace", false).expect("a code").starts_with("time_namespace (start)\n"));
    }

    #[test]
    fn commands_are_shown_as_they_are_used() {
        assert!(help("module apply", false).expect("a command").contains("--dry-run"));
        assert!(help("", false).expect("all").contains("Commands:"));
    }

    #[test]
    fn what_is_neither_is_told_with_what_comes_near() {
        let Err(Error::Problem(problem)) = help("node_quiet", false) else { panic!("it is known") };
        assert_eq!(problem.exit, Exit::Usage);
        assert!(problem.fact.starts_with("\"node_quiet\" is neither a code nor a command; there are "));
    }

    #[test]
    fn programs_read_it_too() {
        let object: serde_json::Value = serde_json::from_str(&help("no_leader", true).unwrap()).unwrap();
        assert_eq!(object["code"], "no_leader");
        assert_eq!(object["schema"], 1);
    }
}
