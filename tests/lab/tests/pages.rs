//! The documents show the results that are checked in, and nothing else.

use std::path::Path;

use anyhow::Result;
use farm_lab::{bench, page};

fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).expect("this crate is a folder in a folder of the project")
}

#[test]
fn every_page_shows_the_results_that_are_checked_in() -> Result<()> {
    let pages = page::pages(root())?;
    assert_eq!(pages.len(), 2);
    for page in pages {
        let differs = page.text.lines().zip(page.rendered.lines()).find(|(is, shall)| is != shall);
        assert_eq!(differs, None, "{}: `make pages` mends it", page.path.display());
        assert_eq!(page.text.len(), page.rendered.len(), "{}", page.path.display());
    }
    Ok(())
}

#[test]
fn every_figure_that_is_checked_in_can_be_measured_again() -> Result<()> {
    let report = bench::Report::read(&root().join("docs/bench.json"))?;
    let commands = bench::commands();
    assert!(!report.figures.is_empty());
    for figure in report.figures {
        assert!(commands.contains(&figure.command), "{}: {}", figure.name, figure.command);
    }
    Ok(())
}
