//! `farmd recover`: one server goes on alone with what it has, because people say so. It works on the data directory,
//! while the daemon does not run.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use farm_core::id::NodeId;
use farm_store::{OpenOptions, Store};

use crate::config::Config;
use crate::daemon::{self, set_aside};
use crate::journal::Journal;
use crate::problem::Problem;
use crate::raft::{Held, TakeOver};

/// What is typed to say yes.
const YES: &str = "yes";

/// Shows what would be lost, asks unless `sure`, and writes the decision down.
///
/// # Errors
/// Why nothing was decided; nothing was changed then.
pub fn recover(config: &Config, sure: bool) -> Result<(), Problem> {
    let store = open(config)?;
    let held = Held::read(&store).map_err(|e| unreadable(config, &e))?;
    let held = held.ok_or_else(|| {
        let fact =
            format!("{} belongs to no cluster: there is nothing to recover", config.store_dir().display());
        Problem::new("nothing_to_recover", fact, "farmctl node join PEER")
    })?;
    let decision = held.alone(u64::from_le_bytes(daemon::random()?));
    if decision.overruled.is_empty() {
        let fact = format!("{} votes alone already: it needs nobody to go on", config.name);
        return Err(Problem::new("nothing_to_recover", fact, "systemctl start farmd"));
    }
    println!("{}", shown(config, &held, &decision));
    if !sure && !confirmed() {
        let fact = "not confirmed: nothing was changed";
        return Err(Problem::new("not_confirmed", fact, "farmctl recover --yes"));
    }
    farm_store::wait(|done| decision.put(&store, done)).map_err(|e| unreadable(config, &e))?;
    note(config, &held, &decision);
    println!(
        "Recovered. Start the daemon, then the others: they join anew by themselves.\n  next: systemctl start farmd"
    );
    Ok(())
}

fn open(config: &Config) -> Result<Store, Problem> {
    let dir = config.store_dir();
    if !dir.exists() {
        let fact = format!("{} does not exist: there is nothing to recover", dir.display());
        return Err(Problem::new("nothing_to_recover", fact, "farmctl node join PEER"));
    }
    let options = OpenOptions::new(Arc::new(|error| {
        eprintln!("farmd: the store failed: {error}");
        std::process::abort();
    }));
    let opened = Store::open(&dir, &options).map(|(store, _)| store);
    opened.map_err(|e| Problem::new(e.code(), e.to_string(), daemon::store_cure(&e, &dir)))
}

fn unreadable(config: &Config, error: &std::io::Error) -> Problem {
    let dir = config.store_dir();
    Problem::new("data_dir", format!("{}: {error}", dir.display()), set_aside(&dir))
}

/// Everything that somebody who decides this has to know.
fn shown(config: &Config, held: &Held, decision: &TakeOver) -> String {
    let state = &held.state;
    let names = |ids: &mut dyn Iterator<Item = NodeId>| {
        ids.map(|id| state.name_of(id)).collect::<Vec<_>>().join(", ")
    };
    let others = names(&mut decision.overruled.iter().copied());
    let unsure = held.last.index.saturating_sub(held.agreed);
    let mut lines = vec![
        format!("{} of cluster {} goes on alone with what is on its disk.", config.name, state.name),
        String::new(),
        format!("  members         {}", names(&mut state.nodes.keys().copied())),
        format!("  voters          {}", names(&mut held.voters.iter().copied())),
        format!("  last entry      {} (epoch {})", held.last.index, state.epoch),
        format!(
            "  generation      {} now, {} from then on",
            held.generation.number, decision.generation.number
        ),
        String::new(),
    ];
    if unsure > 0 {
        lines.push(format!("  * {unsure} entries are not known to be agreed on; they will hold."));
    }
    if held.voters.len() > 2 {
        lines.push(format!(
            "  * What {others} agreed on without {} is lost: changes since it was cut off or stopped.",
            config.name
        ));
    }
    lines.push(format!(
        "  * {others} must not serve any more. Make sure that they are off, or that farmd is stopped there:"
    ));
    lines.push("    two halves that go on each by itself answer the same clients.".into());
    lines.push(
        "  * When they start again they find out, set their logs aside, and join anew by themselves.".into(),
    );
    lines.join("\n")
}

fn confirmed() -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    print!("\nType {YES} to go on: ");
    // A prompt that cannot be shown is one that nobody answers.
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).is_ok() && line.trim() == YES
}

/// For who asks later what happened.
fn note(config: &Config, held: &Held, decision: &TakeOver) {
    let others: Vec<String> = decision.overruled.iter().map(|id| held.state.name_of(*id)).collect();
    let text = format!(
        "somebody had {} go on without {} (farmctl recover): generation {} begins at entry {}",
        config.name,
        others.join(" and "),
        decision.generation.number,
        held.last.index
    );
    Journal::open(&config.data_dir).note(held.me.0, "recovered", "cluster", text, "");
}

/// Reads the configuration and recovers.
///
/// # Errors
/// As [`recover`].
pub fn run(config: &Path, sure: bool) -> Result<(), Problem> {
    recover(&Config::load(config, None)?, sure)
}
