//! Who may know whom, and how the code is kept: over `cargo metadata` and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, Package};

/// Longest file, without its tests.
const FILE_LINES_MAX: usize = 600;
/// Longest function.
const FUNCTION_LINES_MAX: usize = 70;
/// What the pure core must never see, not even through another crate.
const IMPURE: [&str; 13] = [
    "aya",
    "fastrand",
    "farm-proto",
    "getrandom",
    "libc",
    "mio",
    "nix",
    "prost",
    "rand",
    "rand_core",
    "socket2",
    "tokio",
    "tonic",
];

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("this crate is a folder of the project").to_path_buf()
}

fn metadata() -> Result<Metadata> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = ["--locked".to_owned(), "--filter-platform".to_owned(), platform];
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).other_options(options);
    command.exec().context("cargo metadata")
}

/// Our own crates that `package` is built from (not what only its tests use).
fn own(package: &Package) -> BTreeSet<String> {
    let built = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
    built.filter(|d| d.path.is_some()).map(|d| d.name.clone()).collect()
}

/// The table "Crates, and who may know whom" of ARCHITECTURE.md: what each crate may know; `None` for anything.
fn rule() -> Result<BTreeMap<String, Option<BTreeSet<String>>>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let mut rule = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, crates, _, knows, ..] = cells[..] else { continue };
        let above: BTreeSet<String> = rule.keys().cloned().collect();
        let knows = known(knows, &above);
        for name in crates.split(", ") {
            rule.insert(name.trim_matches('`').to_owned(), knows.clone());
        }
    }
    ensure!(rule.contains_key("farm-core"), "ARCHITECTURE.md has no table of crates");
    Ok(rule)
}

fn known(cell: &str, above: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let words = cell.split([':', '(']).next().unwrap_or_default().trim();
    match words {
        "anything" => None,
        "nothing" => Some(BTreeSet::new()),
        "all of the above" => Some(above.clone()),
        names => Some(names.split(", ").map(|name| format!("farm-{name}")).collect()),
    }
}

#[test]
fn crates_know_whom_the_table_of_architecture_allows() -> Result<()> {
    let (metadata, rule) = (metadata()?, rule()?);
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(allowed) = rule.get(package.name.as_str()) else {
            wrong.push(format!("{} is not in the table", package.name));
            continue;
        };
        let Some(allowed) = allowed else { continue };
        let strangers: Vec<String> = own(package).difference(allowed).cloned().collect();
        if !strangers.is_empty() {
            wrong.push(format!("{} knows {}", package.name, strangers.join(", ")));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// Every crate that `name` is built from, directly or not.
fn built_from(metadata: &Metadata, name: &str) -> Result<BTreeSet<String>> {
    let graph = metadata.resolve.as_ref().context("cargo metadata resolves")?;
    let package = metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == name);
    let mut open = vec![package.with_context(|| format!("no crate {name}"))?.id.clone()];
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        let node = graph.nodes.iter().find(|n| n.id == id).context("resolved")?;
        let built = |kinds: &[cargo_metadata::DepKindInfo]| {
            kinds.iter().any(|k| k.kind != DependencyKind::Development)
        };
        for dependency in node.deps.iter().filter(|d| built(&d.dep_kinds)) {
            if found.insert(metadata[&dependency.pkg].name.to_string()) {
                open.push(dependency.pkg.clone());
            }
        }
    }
    Ok(found)
}

#[test]
fn the_core_is_built_from_nothing_impure() -> Result<()> {
    let built_from = built_from(&metadata()?, "farm-core")?;
    ensure!(built_from.contains("farm-common"), "the graph is not empty: {built_from:?}");
    let impure: Vec<&str> = IMPURE.into_iter().filter(|name| built_from.contains(*name)).collect();
    ensure!(impure.is_empty(), "farm-core is built from {impure:?}");
    Ok(())
}

#[test]
fn a_module_is_judged_by_nothing_impure() -> Result<()> {
    let metadata = metadata()?;
    let built_from = built_from(&metadata, "farm-module")?;
    let impure: Vec<&str> = IMPURE.into_iter().filter(|name| built_from.contains(*name)).collect();
    ensure!(impure.is_empty(), "farm-module is built from {impure:?}");
    let package = metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == "farm-module");
    assert_eq!(own(package.context("farm-module")?), BTreeSet::from(["farm-core".to_owned()]));
    Ok(())
}

#[test]
fn what_kernel_and_user_space_share_depends_on_nothing() -> Result<()> {
    let built_from = built_from(&metadata()?, "farm-common")?;
    ensure!(built_from.is_empty(), "farm-common is built from {built_from:?}");
    Ok(())
}

#[test]
fn the_program_stands_outside_of_the_workspace_and_knows_only_what_is_shared() -> Result<()> {
    ensure!(metadata()?.workspace_packages().iter().all(|p| p.name.as_str() != "farm-ebpf"));
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("dataplane/ebpf/Cargo.toml"));
    let program = command.no_deps().other_options([]).features(CargoOpt::AllFeatures).exec()?;
    let package = program.packages.first().context("farm-ebpf")?;
    assert_eq!(own(package), BTreeSet::from(["farm-common".to_owned()]));
    Ok(())
}

/// A source file and what is in it.
struct Source {
    path: String,
    lines: Vec<String>,
}

/// Files of the project with one of these endings, built and hidden ones excepted.
fn sources(endings: &[&str]) -> Result<Vec<Source>> {
    let (root, mut found) = (root(), Vec::new());
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let lines = fs::read_to_string(&path)?.lines().map(str::to_owned).collect();
                let path = path.strip_prefix(&root)?.display().to_string();
                found.push(Source { path, lines });
            }
        }
    }
    ensure!(found.len() > 20 || endings != [".rs"], "only {} sources found", found.len());
    Ok(found)
}

impl Source {
    /// Is the whole file test code?
    fn is_test(&self) -> bool {
        let inner = self.path.strip_prefix("tests/lab/").or(self.path.strip_prefix("tests/"));
        let inner = inner.unwrap_or(&self.path);
        inner.split('/').any(|part| part == "tests" || part == "examples") || inner.ends_with("_test.rs")
    }

    /// Its lines before the tests at its end.
    fn product(&self) -> usize {
        self.lines.iter().position(|l| l == "#[cfg(test)]").unwrap_or(self.lines.len())
    }

    /// Its functions: name, first line, number of lines. Sources are formatted, so a body ends with the brace below
    /// its `fn`.
    fn functions(&self) -> Vec<(String, usize, usize)> {
        let numbered = self.lines.iter().enumerate();
        let starts = numbered.filter_map(|(i, line)| Some((function_name(line)?, i)));
        let length = |start: usize| {
            let indent: String = self.lines[start].chars().take_while(|c| *c == ' ').collect();
            let end = format!("{indent}}}");
            let one_line = self.lines[start].ends_with(['}', ';']);
            let body = self.lines[start..].iter().position(|line| *line == end).unwrap_or(0);
            if one_line { 1 } else { body + 1 }
        };
        starts.map(|(name, start)| (name, start + 1, length(start))).collect()
    }
}

/// The name of the function that begins on this line.
fn function_name(line: &str) -> Option<String> {
    let (before, after) = line.split_once("fn ")?;
    let modifiers = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern", "\"C\""];
    let declares = before.split_whitespace().all(|word| modifiers.contains(&word));
    let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (declares && !name.is_empty()).then_some(name)
}

#[test]
fn files_hold_one_concept() -> Result<()> {
    let long = sources(&[".rs"])?.into_iter().filter(|s| !s.is_test() && s.product() > FILE_LINES_MAX);
    let long: Vec<String> = long.map(|s| format!("{}: {} lines", s.path, s.product())).collect();
    ensure!(long.is_empty(), "longer than {FILE_LINES_MAX} lines without tests: {long:?}");
    Ok(())
}

#[test]
fn functions_are_short() -> Result<()> {
    let all = sources(&[".rs"])?;
    let functions = all.iter().flat_map(|s| s.functions().into_iter().map(move |f| (s, f)));
    let long = functions.clone().filter(|(_, (_, _, length))| *length > FUNCTION_LINES_MAX);
    let long: Vec<String> =
        long.map(|(s, (name, line, length))| format!("{}:{line} {name}: {length}", s.path)).collect();
    ensure!(long.is_empty(), "longer than {FUNCTION_LINES_MAX} lines: {long:?}");
    let mut lengths: Vec<usize> = functions.map(|(_, (_, _, length))| length).collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    ensure!(lengths.len() > 500 && median <= 11, "median of {} functions is {median} lines", lengths.len());
    Ok(())
}

#[test]
fn a_long_function_is_seen() {
    let body = vec!["        work();".to_owned(); FUNCTION_LINES_MAX];
    let lines =
        [vec!["    pub(crate) async fn long() {".to_owned()], body, vec!["    }".to_owned()]].concat();
    let source = Source { path: "src/x.rs".into(), lines };
    assert_eq!(source.functions(), [("long".to_owned(), 1, FUNCTION_LINES_MAX + 2)]);
}

/// Where any of `words` stands in `sources`, but for this file, which names them.
fn found(sources: &[Source], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|s| s.path != "tests/tests/structure.rs") {
        for (i, line) in source.lines.iter().enumerate() {
            let hits = words.iter().filter(|word| line.contains(**word));
            found.extend(hits.map(|word| format!("{}:{} {word}", source.path, i + 1)));
        }
    }
    found
}

#[test]
fn nothing_is_left_undone_or_skipped() -> Result<()> {
    let words = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "FIXME", "XXX:"];
    let found = found(&sources(&[".rs"])?, &words);
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

#[test]
fn no_source_names_a_place_on_one_machine() -> Result<()> {
    let endings = [".rs", ".toml", ".md", ".sh", ".proto", "Makefile", ".service"];
    let found = found(&sources(&endings)?, &["/work/", "/root/", "/home/", "/tmp/t-"]);
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}
