//! The page in a real browser: it shows what happens without being loaded again, and says when it cannot.

use anyhow::{Result, ensure};
use farm_lab::{Mode, Place};
use farm_tests::browser::Browser;
use farm_tests::farm::Farm;
use farm_tests::web::HTTP_PORT;
use serde_json::json;

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
/// The card of node2.
const CARD: &str = "document.querySelector('#nodes [data-node=node2]')";
const GREEN: &str = "document.getElementById('summary').className === 'banner green'";

fn open(farm: &Farm) -> Result<Browser<'_>> {
    let browser = Browser::start(farm, Place::Client)?;
    browser.open(&format!("http://{}:{HTTP_PORT}/", ONE.address()))?;
    browser.await_true("all is green", GREEN)?;
    // A page that is loaded again forgets this.
    browser.run("window.seen = []; window.kept = true")?;
    Ok(browser)
}

fn still_the_same(browser: &Browser) -> Result<()> {
    ensure!(browser.run("return window.kept")? == json!(true), "the page was loaded again");
    Ok(())
}

#[test]
fn a_node_dies_and_the_page_turns_red_and_says_why_without_being_loaded_again() -> Result<()> {
    let farm = Farm::up("page-dies", Mode::Directed)?;
    let browser = open(&farm)?;
    ensure!(browser.run(&format!("return {CARD}.className"))? == json!("card green"));
    let shares = "[...document.querySelectorAll('#modules .share')].map((s) => s.innerText).join(' ')";
    let before = browser.run(&format!("return {shares}"))?;
    ensure!(before.as_str().is_some_and(|text| text.contains("33.3 %")), "{before}");

    farm.power_off(TWO)?;
    browser.await_true("the card of node2 is red", &format!("{CARD}.classList.contains('red')"))?;
    // The colour is not all that says it.
    browser.await_true("and says silent", &format!("{CARD}.innerText.includes('silent')"))?;
    browser.await_true("so is the whole", "document.getElementById('summary').classList.contains('red')")?;
    let condition = "[...document.querySelectorAll('#conditions .card.red')].map((c) => c.innerText)";
    browser.await_true(
        "what is wrong, for how long, why, and what next",
        &format!(
            "{condition}.some((t) => t.includes('node2') && t.includes(' for ') && t.includes('next: '))"
        ),
    )?;
    browser.await_true(
        "the events tell how clients went on",
        "document.getElementById('events').innerText.includes('buckets_moved')",
    )?;
    browser.await_true("the others have its share", &format!("{shares}.includes('50.0 %')"))?;
    still_the_same(&browser)?;

    farm.power_on(TWO)?;
    browser.await_true("it is back", GREEN)?;
    still_the_same(&browser)
}

#[test]
fn a_page_whose_node_is_gone_says_so_and_goes_on_by_itself() -> Result<()> {
    let farm = Farm::up("page-gone", Mode::Directed)?;
    let browser = open(&farm)?;
    let lost = "document.getElementById('lost')";
    farm.kill_farmd(ONE)?;
    browser
        .await_true("it says so", &format!("!{lost}.hidden && {lost}.innerText.includes('No news since')"))?;
    browser.await_true("what is old looks old", "document.body.classList.contains('stale')")?;
    farm.start_farmd(ONE)?;
    browser.await_true("there are news again", &format!("{lost}.hidden"))?;
    browser.await_true("all is green", GREEN)?;
    still_the_same(&browser)
}

#[test]
fn the_page_fits_a_phone_and_runs_nothing_that_it_did_not_bring() -> Result<()> {
    let farm = Farm::up("page-phone", Mode::Directed)?;
    let browser = open(&farm)?;
    let size = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]")?;
    ensure!(size[0].as_u64() <= size[1].as_u64() && size[1].as_u64() < Some(600), "{size}");
    browser.run(
        "document.addEventListener('securitypolicyviolation', (e) => window.seen.push(e.effectiveDirective)); \
         const s = document.createElement('script'); s.textContent = 'window.evil = 1'; document.body.append(s); \
         const i = new Image(); i.src = '/healthz'; document.body.append(i);",
    )?;
    browser.await_true(
        "both are refused",
        "window.seen.includes('img-src') && window.seen.some((d) => d.startsWith('script-src'))",
    )?;
    ensure!(browser.run("return window.evil === undefined")? == json!(true));
    Ok(())
}
