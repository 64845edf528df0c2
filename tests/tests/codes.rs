//! `docs/operate/codes.md` has every stable code that the sources can produce, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use farmctl::args::parse_cure;

/// What makes something with a code, which is then its first literal.
const MAKERS: [&str; 4] = ["Problem::new(", "Refusal::new(", "invalid(", "condition("];
/// The same within `impl Problem` of the command line.
const OWN_MAKER: (&str, &str) = ("cli/src/error.rs", "Self::new(");
/// First arguments of a maker that are no literal: each passes on a code that is read elsewhere.
const PASSED_ON: [&str; 4] = ["code,", "e.code(),", "refused.code,", "r.code,"];
/// Where codes are chosen by a `match`.
const CHOICES: [&str; 4] = [
    "raft-node/core/src/apply/changes.rs",
    "raft-node/core/src/condition.rs",
    "raft-node/src/raft/gate.rs",
    "raft-node/store/src/error.rs",
];

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("this crate is a folder of the project").to_path_buf()
}

/// The sources below `directory` without their tests, by path from the root.
fn sources(directory: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root().join(directory)).with_context(|| directory.to_owned())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let path = format!("{directory}/{name}");
        if root().join(&path).is_dir() {
            found.extend(sources(&path)?);
        } else if name.ends_with(".rs") && !name.ends_with("_test.rs") {
            let text = fs::read_to_string(root().join(&path))?;
            let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            found.insert(path, product.to_owned());
        }
    }
    Ok(found)
}

/// The literal at the start of `text`, if it is `snake_case`.
fn literal(text: &str) -> Option<String> {
    let (inner, _) = text.trim_start().strip_prefix('"')?.split_once('"')?;
    let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!inner.is_empty() && inner.chars().all(snake)).then(|| inner.to_owned())
}

/// `text` behind a first argument that is an exit code.
fn behind_exit(text: &str) -> &str {
    let text = text.trim_start();
    let is_exit = text.starts_with("Exit::") || text.starts_with("exit,");
    text.split_once(',').filter(|_| is_exit).map_or(text, |(_, rest)| rest.trim_start())
}

fn made(path: &str, text: &str) -> Result<Vec<String>> {
    let mut codes = Vec::new();
    let own = (path == OWN_MAKER.0).then_some(OWN_MAKER.1);
    for maker in MAKERS.into_iter().chain(own) {
        for (at, _) in text.match_indices(maker) {
            let arguments = behind_exit(&text[at + maker.len()..]);
            let readable = !["Problem::new(", "Refusal::new("].contains(&maker)
                || PASSED_ON.iter().any(|passed| arguments.starts_with(passed));
            match literal(arguments) {
                Some(code) => codes.push(code),
                None => ensure!(readable, "{path}: no code can be read from {maker}{:.40}", arguments),
            }
        }
    }
    codes.extend(text.match_indices(" code: ").filter_map(|(at, field)| literal(&text[at + field.len()..])));
    if CHOICES.contains(&path) {
        let arms =
            text.match_indices("=> ").map(|(at, arrow)| text[at + arrow.len()..].trim_start_matches('('));
        codes.extend(arms.filter_map(literal));
    }
    Ok(codes)
}

/// Every code in the sources, with one place of it.
fn in_sources() -> Result<BTreeMap<String, String>> {
    let mut codes = BTreeMap::new();
    for directory in
        ["cli/src", "raft-node/src", "raft-node/core/src", "raft-node/store/src", "tests/lab/src"]
    {
        for (path, text) in sources(directory)? {
            codes.extend(made(&path, &text)?.into_iter().map(|code| (code, path.clone())));
        }
    }
    Ok(codes)
}

/// The rows of the page: code, where from, meaning, remedy.
fn in_page() -> Result<Vec<[String; 4]>> {
    let text = fs::read_to_string(root().join("docs/operate/codes.md"))?;
    let row = |line: &str| {
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        let [_, code, from, meaning, remedy, _] = <[String; 6]>::try_from(cells).ok()?;
        Some([code.trim_matches('`').to_owned(), from, meaning, remedy])
    };
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| row(line).with_context(|| format!("four cells: {line}"))).collect()
}

#[test]
fn the_page_has_every_code_and_no_other() -> Result<()> {
    let (sources, page) = (in_sources()?, in_page()?);
    ensure!(sources.len() > 100, "the codes were found: {sources:?}");
    let rows: Vec<&String> = page.iter().map(|[code, ..]| code).collect();
    ensure!(rows.is_sorted_by(|a, b| a < b), "sorted, each once: {rows:?}");
    let documented: BTreeSet<&String> = rows.into_iter().collect();
    let missing: Vec<_> = sources.iter().filter(|(code, _)| !documented.contains(code)).collect();
    let stale: Vec<_> = documented.into_iter().filter(|code| !sources.contains_key(*code)).collect();
    ensure!(missing.is_empty(), "not in docs/operate/codes.md: {missing:?}");
    ensure!(stale.is_empty(), "in docs/operate/codes.md, but nowhere in the sources: {stale:?}");
    Ok(())
}

#[test]
fn every_row_says_what_to_do_with_commands_that_exist() -> Result<()> {
    for [code, from, meaning, remedy] in in_page()? {
        ensure!(![&from, &meaning, &remedy].iter().any(|cell| cell.is_empty()), "{code} has an empty cell");
        for command in remedy.split('`').skip(1).step_by(2).filter(|quoted| quoted.starts_with("farmctl")) {
            parse_cure(command).map_err(anyhow::Error::msg).context(code.clone())?;
        }
    }
    Ok(())
}

#[test]
fn codes_are_found_however_they_are_written() -> Result<()> {
    let text = r#"Problem::new(Exit::Local, "one", x); Refusal::new(
        "two_2", fact); let r = Refused { code: "three".into() }; Err( invalid("Field.name", x))"#;
    ensure!(made("x.rs", text)? == ["one", "two_2", "three"]);
    ensure!(made(CHOICES[0], "A => \"four\", B => (\"five\", x), C => \"Not one\"")? == ["four", "five"]);
    ensure!(made("x.rs", "Problem::new(format!(\"a{b}\"), x)").is_err(), "a code that is put together");
    Ok(())
}
