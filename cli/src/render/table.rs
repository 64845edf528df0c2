//! Aligned tables without lines.

use comfy_table::{Cell, Color, Table as Grid, presets};

use crate::view::Level;

/// How a level looks in a terminal.
pub(super) trait Paint {
    /// In a table.
    fn colour(self) -> Color;
    /// `text` in this colour, if colours are welcome.
    fn paint(self, text: &str, colour: bool) -> String;
}

impl Paint for Level {
    fn colour(self) -> Color {
        match self {
            Self::Green => Color::Green,
            Self::Yellow => Color::Yellow,
            Self::Red => Color::Red,
        }
    }

    fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
        };
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The text of a cell, and how good what it says is.
#[derive(Clone, Debug)]
pub(super) struct Text {
    text: String,
    level: Option<Level>,
}

impl Text {
    pub(super) fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), level: None }
    }

    pub(super) fn level(text: &str, level: Level) -> Self {
        Self { text: text.to_owned(), level: Some(level) }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn said(&self) -> Option<Level> {
        self.level
    }

    fn cell(self) -> Cell {
        let cell = Cell::new(self.text);
        match self.level {
            None => cell,
            Some(level) => cell.fg(level.colour()),
        }
    }
}

/// A table.
pub(super) struct Table(Grid);

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING).set_header(header.iter().copied());
        grid.column_iter_mut().for_each(|column| {
            column.set_padding((0, 2));
        });
        Self(grid)
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Text>) {
        self.0.add_row(cells.into_iter().map(Text::cell));
    }

    /// The lines of the table, without blanks at their ends.
    pub(super) fn draw(mut self, colour: bool) -> String {
        if colour {
            self.0.enforce_styling()
        } else {
            self.0.force_no_tty()
        };
        self.0.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}
