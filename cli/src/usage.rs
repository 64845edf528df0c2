//! A wrong command line, in one sentence.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::Cli;
use crate::error::Problem;
use crate::exit::Exit;

/// What clap found in `args` (program name first), as one sentence that names the thing.
#[must_use]
pub fn problem(error: &clap::Error, args: &[OsString]) -> Problem {
    let command = deepest(args);
    let fact = match error.kind() {
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("{} needs a subcommand: {}", command.path, command.subcommands.join(", "))
        }
        _ => sentence(error),
    };
    Problem::new(Exit::Usage, "usage", fact, format!("{} --help", command.path))
}

/// Clap's first paragraph on one line, with its suggestion if it has one.
fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let fact = line.strip_prefix("error: ").unwrap_or(&line).to_owned();
    match suggestion(error) {
        Some(similar) => format!("{fact}; did you mean {similar}?"),
        None => fact,
    }
}

fn suggestion(error: &clap::Error) -> Option<String> {
    let kinds = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    kinds.into_iter().find_map(|kind| match error.get(kind) {
        Some(ContextValue::String(one)) => Some(one.clone()),
        Some(ContextValue::Strings(many)) => many.first().cloned(),
        Some(_) | None => None,
    })
}

struct Deepest {
    path: String,
    subcommands: Vec<String>,
}

/// The most specific command that `args` name.
fn deepest(args: &[OsString]) -> Deepest {
    let mut command = Cli::command();
    let mut path = command.get_name().to_owned();
    for word in args.iter().skip(1).filter_map(|a| a.to_str()) {
        if let Some(found) = command.find_subcommand(word).cloned() {
            path = format!("{path} {word}");
            command = found;
        }
    }
    let subcommands = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    Deepest { path, subcommands }
}
