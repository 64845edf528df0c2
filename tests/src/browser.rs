//! A real browser without a screen on one of the lab's machines, driven as W3C WebDriver says
//! (<https://www.w3.org/TR/webdriver2/>).

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use farm_lab::{Lab, Place, shell};
use serde_json::{Value, json};

use crate::farm::LIMIT;

/// The port of the driver; each machine of a lab has its own.
const DRIVER: &str = "http://127.0.0.1:9515";
/// Seconds within which the driver answers a command; a browser that starts takes a few.
const PATIENCE: &str = "60";

/// A window of it. It ends with the value.
pub struct Browser<'a> {
    lab: &'a Lab,
    place: Place,
    driver: Child,
    session: String,
}

impl<'a> Browser<'a> {
    /// Starts one at `place`, as large as a phone.
    ///
    /// # Errors
    /// Chromium is not installed, or does not start.
    pub fn start(lab: &'a Lab, place: Place) -> Result<Self> {
        let mut driver = lab.command(place, "chromedriver")?;
        driver.args(["--port=9515", "--log-level=SEVERE"]).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = driver.spawn().context("chromedriver: scripts/setup.sh brings it")?;
        let mut browser = Self { lab, place, driver, session: String::new() };
        shell::await_value("the browser's driver answers", LIMIT, || {
            Ok(browser.ask("GET", "/status", &Value::Null).ok())
        })?;
        // Its own sandbox wants a user that is not root; what it opens here is the lab's alone.
        let options =
            json!({ "args": ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,844"] });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let made = browser.ask("POST", "/session", &wanted)?;
        browser.session = format!("/session/{}", made["sessionId"].as_str().context("a session")?);
        Ok(browser)
    }

    /// Goes to a page.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn open(&self, url: &str) -> Result<()> {
        self.ask("POST", &format!("{}/url", self.session), &json!({ "url": url })).map(drop)
    }

    /// What this script returns, in the page.
    ///
    /// # Errors
    /// It throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        let body = json!({ "script": script, "args": [] });
        self.ask("POST", &format!("{}/execute/sync", self.session), &body)
    }

    /// Waits until this expression is true in the page.
    ///
    /// # Errors
    /// It stays false; then the text of the page is told.
    pub fn await_true(&self, what: &str, expression: &str) -> Result<()> {
        let holds = || Ok((self.run(&format!("return !!({expression})"))? == json!(true)).then_some(()));
        shell::await_value(what, LIMIT, holds).with_context(|| self.text().unwrap_or_default())
    }

    /// All that a person reads.
    ///
    /// # Errors
    /// The browser is gone.
    pub fn text(&self) -> Result<String> {
        Ok(self.run("return document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut curl: Command = self.lab.command(self.place, "curl")?;
        curl.args(["-s", "-S", "-m", PATIENCE, "-X", method]);
        if !body.is_null() {
            curl.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        let said = shell::run(curl.arg(format!("{DRIVER}{path}")))?;
        let mut answer: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        match answer["value"].take() {
            Value::Object(value) if value.contains_key("error") => bail!("{path}: {value:?}"),
            value => Ok(value),
        }
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The window goes with its session; where it is gone already there is nothing to end.
            let _ = self.ask("DELETE", &self.session, &Value::Null);
        }
        // The same.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
