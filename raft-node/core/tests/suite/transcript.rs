//! Data-driven transcripts: a file holds commands (`> …`), each followed by what the machine answered.
//!
//! `FARM_REWRITE=1 cargo test -p farm-core` writes the answers anew; the diff is then reviewed like code.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Plays `tests/transcripts/<name>.txt` and compares.
#[allow(clippy::disallowed_methods, reason = "a test reads its data and its switch")]
pub fn play(name: &str, mut answer: impl FnMut(&[&str]) -> String) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(name).with_extension("txt");
    let recorded = std::fs::read_to_string(&path).expect("the transcript exists");
    let mut played = String::new();
    for line in recorded.lines().filter(|l| l.starts_with(['#', '>']) || l.is_empty()) {
        writeln!(played, "{line}").expect("a string takes everything");
        if let Some(command) = line.strip_prefix("> ") {
            let words: Vec<&str> = command.split_whitespace().collect();
            for answered in answer(&words).lines() {
                writeln!(played, "  {answered}").expect("a string takes everything");
            }
        }
    }
    assert!(played.lines().any(|l| l.starts_with("> ")), "an empty transcript proves nothing");
    if std::env::var("FARM_REWRITE").is_ok() {
        std::fs::write(&path, &played).expect("the transcript can be written");
        return;
    }
    assert!(played == recorded, "{name} differs; played:\n{played}\nrecorded:\n{recorded}");
}

/// The number at `index` of a command, without its letters (`n3`, `e5`, `t40`).
pub fn number(words: &[&str], index: usize) -> u64 {
    let word = words.get(index).unwrap_or_else(|| panic!("{words:?} has no word {index}"));
    word.trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap_or_else(|_| panic!("no number: {word}"))
}
