//! Figures of one group that say more side by side: a table with a row per case and a column per measure.

use std::fmt::Write;

use super::figure::Figure;

/// The shape of such a table. Its figures are called GROUP/ROW/COLUMN.
pub(super) struct Pivot {
    pub(super) group: &'static str,
    /// What a row is.
    pub(super) rows: &'static str,
    /// Names and units.
    pub(super) columns: &'static [(&'static str, &'static str)],
}

impl Pivot {
    /// Row and column of a figure of this table.
    pub(super) fn cell<'a>(&self, name: &'a str) -> Option<(&'a str, &'a str)> {
        let (row, column) = name.strip_prefix(self.group)?.strip_prefix('/')?.split_once('/')?;
        self.columns.iter().any(|(known, _)| *known == column).then_some((row, column))
    }

    /// The unit of a column.
    pub(super) fn unit(&self, column: &str) -> &'static str {
        self.columns.iter().find(|(name, _)| *name == column).map_or("", |(_, unit)| unit)
    }

    /// Rows in the order of the figures; medians. What misses its budget is bold.
    pub(super) fn table(&self, figures: &[Figure]) -> String {
        let titles: Vec<String> =
            self.columns.iter().map(|(name, unit)| format!("{name}, {unit} |")).collect();
        let rule = "---|".repeat(self.columns.len() + 1);
        let mut text = format!("| {} | {}\n|{rule}\n", self.rows, titles.join(" "));
        let mut rows: Vec<&str> = Vec::new();
        for (row, _) in figures.iter().filter_map(|figure| self.cell(&figure.name)) {
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        for row in rows {
            let value = |column: &str| {
                let wanted = figures.iter().find(|figure| self.cell(&figure.name) == Some((row, column)));
                wanted.map_or("-".into(), shown)
            };
            let cells: Vec<String> =
                self.columns.iter().map(|(column, _)| format!("{} |", value(column))).collect();
            let _ = writeln!(text, "| {row} | {}", cells.join(" "));
        }
        text
    }
}

/// Two digits where they matter.
fn shown(figure: &Figure) -> String {
    let value = match figure.value.map(|value| value.p50) {
        None => "nothing".to_owned(),
        Some(value) if value.fract() == 0.0 || value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    };
    if figure.met == Some(false) { format!("**{value}**") } else { value }
}

#[cfg(test)]
mod tests {
    use super::super::figure::Budget;
    use super::super::group::Group;
    use super::*;

    const TABLE: Pivot =
        Pivot { group: "scale", rows: "size", columns: &[("plan", "ms"), ("entry", "bytes")] };

    fn figure(name: &str, values: &[f64]) -> Figure {
        let samples: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
        Figure::of(Group::Scale, name, "", "", &samples)
    }

    #[test]
    fn cases_are_rows_and_what_was_not_measured_is_a_dash() {
        let figures = [
            figure("n3/plan", &[0.5, 0.25, 1.0]),
            figure("n32/entry", &[520_502.0]),
            figure("n32/plan", &[]),
            Figure::of(Group::Idle, "cpu", "", "%", &[Some(1.0)]),
        ];
        let table = TABLE.table(&figures);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows, ["| n3 | 0.50 | - |", "| n32 | nothing | 520502 |"]);
    }

    #[test]
    fn a_missed_budget_is_bold() {
        let figures = [figure("n3/plan", &[2.0]).within(Budget::at_most(1.0))];
        assert!(TABLE.table(&figures).ends_with("| n3 | **2** | - |\n"));
    }

    #[test]
    fn a_measurement_that_failed_is_no_cell() {
        assert_eq!(TABLE.cell("scale/failed"), None);
        assert_eq!(TABLE.cell("scale/n3-s1/plan"), Some(("n3-s1", "plan")));
    }
}
