//! What was measured, in the documents: the blocks between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, made from
//! the results in `docs` by the code that prints them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bench::Report;
use crate::demo;

/// Result of `farm-lab demo`, from the root of the source tree.
const DEMO: &str = "docs/demo.json";
/// Result of `farm-lab bench`.
const BENCH: &str = "docs/bench.json";

/// A page of the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
    /// What it should say, with the results that are there.
    pub rendered: String,
}

/// The pages with results under `root`, the root of the source tree.
///
/// # Errors
/// A result or a page cannot be read, or a page lacks a block.
pub fn pages(root: &Path) -> Result<Vec<Page>> {
    let rows = demo::read(&root.join(DEMO))?;
    let report = Report::read(&root.join(BENCH))?;
    let machine = report.machine_text();
    let blocks = [
        ("README.md", "demo", demo::table(&rows)),
        ("README.md", "budgets", format!("{machine}\n{}", report.budget_table())),
        ("docs/figures.md", "figures", format!("{machine}\n{}", report.table())),
    ];
    let tables = report.pivots().map(|(group, table)| ("docs/figures.md", group, table));
    let mut pages: Vec<Page> = Vec::new();
    for (name, block, body) in blocks.into_iter().chain(tables) {
        let path = root.join(name);
        if pages.last().is_none_or(|page| page.path != path) {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            pages.push(Page { rendered: text.clone(), text, path });
        }
        let page = pages.last_mut().context("pushed above")?;
        page.rendered = replace(&page.rendered, block, &body).with_context(|| name.to_owned())?;
    }
    Ok(pages)
}

/// Brings the pages under `root` up to date.
///
/// # Errors
/// As [`pages`], or a page cannot be written.
pub fn write(root: &Path) -> Result<()> {
    for page in pages(root)?.iter().filter(|page| page.text != page.rendered) {
        std::fs::write(&page.path, &page.rendered).with_context(|| page.path.display().to_string())?;
    }
    Ok(())
}

/// `page` with `body` in the block `name`.
fn replace(page: &str, name: &str, body: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let (before, rest) = page.split_once(&begin).with_context(|| format!("no line {}", begin.trim_end()))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no line {end}"))?;
    Ok([before, &begin, "\n", body, "\n", &end, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_block_is_replaced() -> Result<()> {
        let page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n<!-- y:begin -->\n<!-- y:end -->\n";
        let replaced = replace(page, "x", "new\n")?;
        assert_eq!(
            replaced,
            "a\n<!-- x:begin -->\n\nnew\n\n<!-- x:end -->\nb\n<!-- y:begin -->\n<!-- y:end -->\n"
        );
        assert_eq!(replace(&replaced, "x", "new\n")?, replaced);
        Ok(())
    }

    #[test]
    fn a_page_without_the_block_is_an_error() {
        assert!(replace("a\n", "x", "").is_err());
        assert!(replace("<!-- x:begin -->\n", "x", "").is_err());
    }
}
