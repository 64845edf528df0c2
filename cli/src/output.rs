//! Where results go, and how they may look there.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::error::Error;
use crate::view::Stamped;

/// The output of one command.
pub struct Output<'a> {
    to: &'a mut (dyn Write + Send),
    /// Print JSON.
    pub json: bool,
    /// A terminal that can be redrawn.
    pub terminal: bool,
    /// Colours are welcome. They never say anything that the text does not.
    pub colour: bool,
}

impl<'a> Output<'a> {
    /// Plain text or JSON to `to`.
    pub fn plain(to: &'a mut (dyn Write + Send), json: bool) -> Self {
        Self { to, json, terminal: false, colour: false }
    }

    /// As the standard output allows.
    pub fn standard(to: &'a mut (dyn Write + Send), json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let terminal = io::stdout().is_terminal() && !dumb;
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { to, json, terminal, colour: terminal && !no_colour }
    }

    /// Writes `text` as it is.
    ///
    /// # Errors
    /// The output cannot be written, or its reader went away.
    pub fn text(&mut self, text: &str) -> Result<(), Error> {
        self.to.write_all(text.as_bytes())?;
        Ok(self.to.flush()?)
    }

    /// Writes `text` and a line feed.
    ///
    /// # Errors
    /// The output cannot be written, or its reader went away.
    pub fn line(&mut self, text: &str) -> Result<(), Error> {
        self.text(&format!("{text}\n"))
    }

    /// Writes `value` with the schema version as one JSON object on one line.
    ///
    /// # Errors
    /// The output cannot be written, or its reader went away.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(&Stamped::new(value)).map_err(io::Error::from)?;
        self.line(&text)
    }

    /// Writes the JSON of `value`, or what `human` makes of it.
    ///
    /// # Errors
    /// The output cannot be written, or its reader went away.
    pub fn show<V: Serialize>(&mut self, value: &V, human: impl FnOnce() -> String) -> Result<(), Error> {
        if self.json { self.json(value) } else { self.text(&human()) }
    }
}
