//! `module.toml` table by table: every value is read once, with its line, and what is wrong does not stop the rest.

use core::fmt::Display;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::finding::Findings;
use crate::macros::expand;
use crate::units::{self, NoAmount, size_text};

/// A value and the line that it stands on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) line: u32,
}

/// A table whose keys are taken one by one; what is left over is unknown.
pub(crate) struct Table<'t> {
    /// How its keys are named before the operator: empty, `[env]`, `[[vip]]`.
    head: String,
    /// Where it begins.
    pub(crate) line: u32,
    entries: DeTable<'t>,
    known: Vec<&'static str>,
}

/// A value, and how it is named before the operator.
struct Value<'t> {
    key: String,
    line: u32,
    /// As it is written.
    written: String,
    value: DeValue<'t>,
}

impl<'t> Table<'t> {
    pub(crate) fn new(head: &str, line: u32, entries: DeTable<'t>) -> Self {
        Self { head: head.into(), line, entries, known: Vec::new() }
    }

    fn named(&self, key: &str) -> String {
        if self.head.is_empty() { key.into() } else { format!("{} {key}", self.head) }
    }

    /// Whether `key` is there and not yet taken.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Option<(Spanned<()>, DeValue<'t>)> {
        self.known.push(key);
        let value = self.entries.remove(key)?;
        Some((Spanned::new(value.span(), ()), value.into_inner()))
    }
}

/// The text, the macros, and what was found so far.
pub(crate) struct Reader<'t> {
    text: &'t str,
    /// Where its lines end.
    ends: Vec<usize>,
    /// What `%NAME%` stands for.
    pub(crate) macros: BTreeMap<String, String>,
    /// What is wrong.
    pub(crate) found: &'t mut Findings,
}

impl<'t> Reader<'t> {
    /// The whole text as a table; `None` when it is no TOML, which is then found.
    pub(crate) fn open(text: &'t str, found: &'t mut Findings) -> (Self, Option<Table<'t>>) {
        let ends = text.match_indices('\n').map(|(at, _)| at).collect();
        let reader = Self { text, ends, macros: BTreeMap::new(), found };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = error.span().map_or(1, |span| reader.line_of(span.start));
            let fact = error.message().replace('\n', "; ");
            reader.found.line(line, fact, "see https://toml.io for the form");
        }
        let table = errors.is_empty().then(|| Table::new("", 1, table.into_inner()));
        (reader, table)
    }

    fn line_of(&self, at: usize) -> u32 {
        let before = self.ends.partition_point(|end| *end < at);
        u32::try_from(before + 1).unwrap_or(u32::MAX)
    }

    /// What is left of a table is unknown.
    pub(crate) fn finish(&mut self, table: Table<'t>) {
        for key in table.entries.keys() {
            let line = self.line_of(key.span().start);
            let fact = format!("{} is not known", table.named(key.get_ref()));
            self.found.line(line, fact, format!("known are {}", table.known.join(", ")));
        }
    }

    fn take(&mut self, table: &mut Table<'t>, key: &'static str) -> Option<Value<'t>> {
        let (at, value) = table.take(key)?;
        Some(self.value(table.named(key), at.span(), value))
    }

    fn value(&self, key: String, at: core::ops::Range<usize>, value: DeValue<'t>) -> Value<'t> {
        let line = self.line_of(at.start);
        let written = self.text.get(at).unwrap_or_default().lines().next().unwrap_or_default();
        Value { key, line, written: written.chars().take(60).collect(), value }
    }

    fn wrong<T>(&mut self, value: &Value<'t>, why: impl Display, remedy: impl Into<String>) -> Option<T> {
        let fact = format!("{} = {} {why}", value.key, value.written);
        self.found.line(value.line, fact, remedy);
        None
    }

    /// Finds that `key` is missing; asked before it is taken.
    pub(crate) fn need(&mut self, table: &Table<'t>, key: &str, example: &str) {
        if !table.contains(key) {
            let fact = format!("{} is missing", table.named(key));
            self.found.line(table.line, fact, format!("add {key} = {example}"));
        }
    }

    /// The text of `value`, which from now on is shown with what its macros stand for.
    fn expanded(&mut self, value: &mut Value<'t>) -> Option<String> {
        let DeValue::String(text) = &value.value else {
            return self.wrong(value, "is no text", "put it in quotation marks");
        };
        match expand(text, &self.macros) {
            Ok(text) if text.contains('\0') => self.wrong(value, "has a null character", "remove it"),
            Ok(expanded) => {
                if expanded != *text {
                    let start: String = expanded.chars().take(60).collect();
                    value.written = format!("{} ({start:?})", value.written);
                }
                Some(expanded)
            }
            Err((fact, remedy)) => {
                self.found.line(value.line, format!("{}: {fact}", value.key), remedy);
                None
            }
        }
    }

    /// A text with its macros replaced.
    pub(crate) fn text(&mut self, table: &mut Table<'t>, key: &'static str) -> Option<At<String>> {
        let mut value = self.take(table, key)?;
        Some(At { value: self.expanded(&mut value)?, line: value.line })
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        table: &mut Table<'t>,
        key: &'static str,
        of: &[(&str, T)],
    ) -> Option<T> {
        let mut value = self.take(table, key)?;
        let words: Vec<String> = of.iter().map(|(word, _)| format!("{word:?}")).collect();
        let words = words.join(" or ");
        let DeValue::String(_) = value.value else {
            return self.wrong(&value, format!("is not {words}"), format!("write one of {words}"));
        };
        let text = self.expanded(&mut value)?;
        let chosen = of.iter().find(|(word, _)| *word == text).map(|(_, chosen)| *chosen);
        chosen.or_else(|| self.wrong(&value, format!("is not {words}"), format!("write one of {words}")))
    }

    /// A number, also as a text, which is how a macro can stand for it.
    pub(crate) fn number(
        &mut self,
        table: &mut Table<'t>,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) -> Option<At<u32>> {
        let value = self.take(table, key)?;
        self.number_of(value, range)
    }

    fn number_of(&mut self, mut value: Value<'t>, range: RangeInclusive<u32>) -> Option<At<u32>> {
        let number = match &value.value {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(_) => self.expanded(&mut value)?.parse().ok(),
            _ => None,
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(At { value: number, line: value.line }),
            None => {
                let range = format!("{} to {}", range.start(), range.end());
                self.wrong(&value, format!("is not {range}"), format!("write a number, {range}"))
            }
        }
    }

    /// A number or a text, as a text: VLANs.
    pub(crate) fn word(&mut self, table: &mut Table<'t>, key: &'static str) -> Option<At<String>> {
        let mut value = self.take(table, key)?;
        let text = match &value.value {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            _ => self.expanded(&mut value)?,
        };
        Some(At { value: text, line: value.line })
    }

    /// A length of time.
    pub(crate) fn duration(
        &mut self,
        table: &mut Table<'t>,
        key: &'static str,
        range: RangeInclusive<Duration>,
        example: &str,
    ) -> Option<Duration> {
        let show = |d: &Duration| humantime::format_duration(*d).to_string();
        let show = (show(range.start()), show(range.end()));
        self.amount(table, key, "length of time", example, units::duration, (range, show))
    }

    /// A size in bytes.
    pub(crate) fn size(
        &mut self,
        table: &mut Table<'t>,
        key: &'static str,
        range: RangeInclusive<u64>,
        example: &str,
    ) -> Option<u64> {
        let show = (size_text(*range.start()), size_text(*range.end()));
        self.amount(table, key, "size", example, units::size, (range, show))
    }

    fn amount<T: PartialOrd>(
        &mut self,
        table: &mut Table<'t>,
        key: &'static str,
        what: &str,
        example: &str,
        read: fn(&str) -> Result<T, NoAmount>,
        (range, (least, most)): (RangeInclusive<T>, (String, String)),
    ) -> Option<T> {
        let mut value = self.take(table, key)?;
        let read = match &value.value {
            DeValue::Integer(_) | DeValue::Float(_) => Err(NoAmount::Unit),
            DeValue::String(_) => read(&self.expanded(&mut value)?),
            _ => Err(NoAmount::Text),
        };
        let remedy = format!("write it as {key} = \"{example}\"");
        match read {
            Ok(amount) if range.contains(&amount) => Some(amount),
            Ok(_) => self.wrong(&value, format!("is not {least} to {most}"), remedy),
            Err(NoAmount::Unit) => self.wrong(&value, "has no unit", remedy),
            Err(NoAmount::Text) => self.wrong(&value, format!("is no {what}"), remedy),
        }
    }

    /// A table below; `None` when it is not there.
    pub(crate) fn table(&mut self, table: &mut Table<'t>, key: &'static str) -> Option<Table<'t>> {
        let value = self.take(table, key)?;
        match value.value {
            DeValue::Table(entries) => Some(Table::new(&format!("[{key}]"), value.line, entries)),
            _ => self.wrong(&value, "is no table", format!("write it under [{key}]")),
        }
    }

    /// The tables of a list, at most `most`.
    pub(crate) fn tables(&mut self, table: &mut Table<'t>, key: &'static str, most: usize) -> Vec<Table<'t>> {
        let Some(value) = self.take(table, key) else { return Vec::new() };
        let head = format!("[[{key}]]");
        let DeValue::Array(list) = value.value else {
            self.wrong::<()>(&value, "is no list of tables", format!("write {head}"));
            return Vec::new();
        };
        if list.len() > most {
            let fact = format!("{} {head}; the most are {most}", list.len());
            self.found.line(value.line, fact, "make two modules of it");
            return Vec::new();
        }
        let mut tables = Vec::new();
        for item in list {
            let item = self.value(head.clone(), item.span(), item.into_inner());
            match item.value {
                DeValue::Table(entries) => tables.push(Table::new(&head, item.line, entries)),
                _ => drop(self.wrong::<()>(&item, "is no table", format!("write {head}"))),
            }
        }
        tables
    }

    /// A table of free names, each with a text.
    pub(crate) fn texts(&mut self, table: Table<'t>, most: usize) -> Vec<(String, At<String>)> {
        let values = self.free(table, most);
        let text = |(name, mut value): (String, Value<'t>)| {
            Some((name, At { value: self.expanded(&mut value)?, line: value.line }))
        };
        values.into_iter().filter_map(text).collect()
    }

    /// A table of free names, each with a text that is taken as it is.
    pub(crate) fn literals(&mut self, table: Table<'t>, most: usize) -> Vec<(String, At<String>)> {
        let mut texts = Vec::new();
        for (name, value) in self.free(table, most) {
            match &value.value {
                DeValue::String(text) => {
                    texts.push((name, At { value: text.to_string(), line: value.line }));
                }
                _ => drop(self.wrong::<()>(&value, "is no text", "put it in quotation marks")),
            }
        }
        texts
    }

    /// A table of free names, each with a number.
    pub(crate) fn numbers(
        &mut self,
        table: Table<'t>,
        most: usize,
        range: &RangeInclusive<u32>,
    ) -> Vec<(String, At<u32>)> {
        let values = self.free(table, most);
        let number = |(name, value): (String, Value<'t>)| Some((name, self.number_of(value, range.clone())?));
        values.into_iter().filter_map(number).collect()
    }

    fn free(&mut self, table: Table<'t>, most: usize) -> Vec<(String, Value<'t>)> {
        if table.entries.len() > most {
            let fact = format!("{} names under {}; the most are {most}", table.entries.len(), table.head);
            self.found.line(table.line, fact, "put them into a file of the module");
            return Vec::new();
        }
        let head = table.head;
        let value = |(name, value): (Spanned<_>, Spanned<DeValue<'t>>)| {
            let name: std::borrow::Cow<'_, str> = name.into_inner();
            let key = format!("{head} {name}");
            (name.into_owned(), self.value(key, value.span(), value.into_inner()))
        };
        table.entries.into_iter().map(value).collect()
    }
}
