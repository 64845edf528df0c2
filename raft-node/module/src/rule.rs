//! `[[rule]]`: what the checks by themselves cannot say.
//!
//! ```text
//! condition = all-of { "or" all-of }
//! all-of    = one { "and" one }
//! one       = "not" one | "(" condition ")" | count | RESOURCE "is" [ "not" ] STATE
//! count     = ( "all" | "any" | "at least" NUMBER ) "of" RESOURCES "is" STATE
//! RESOURCE  = tcp.web     RESOURCES = ping.*     STATE = init | up | down | unknown
//! ```

use std::collections::BTreeSet;

use farm_core::resource::Health;
use farm_core::rule::{Condition, Selector};
use winnow::ascii::{dec_uint, multispace0, multispace1};
use winnow::combinator::{alt, cut_err, delimited, eof, opt, preceded, repeat, separated, terminated};
use winnow::error::{ContextError, ErrMode, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::token::take_while;

use crate::action::Action;
use crate::process::check_name;
use crate::reader::{At, Reader, Table};

/// Rules of a module: what a person still overlooks.
pub const RULES: usize = 64;
/// Bytes of a condition.
const CONDITION_BYTES: usize = 1024;
/// Parentheses within each other: more than anybody reads, and less than the stack of a thread holds.
const DEPTH: usize = 16;

/// A rule of a definition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rule {
    /// Its name in the module.
    pub name: String,
    /// The condition as it is written.
    pub text: String,
    /// And as it is meant.
    pub condition: Condition,
    /// What happens when it comes to hold.
    pub action: Action,
}

/// All `[[rule]]`. `resources`: the names that there are.
pub(crate) fn read<'t>(
    reader: &mut Reader<'t>,
    root: &mut Table<'t>,
    resources: &BTreeSet<String>,
) -> Vec<Rule> {
    let tables = reader.tables(root, "rule", RULES);
    let (mut names, mut rules) = (BTreeSet::new(), Vec::new());
    for table in tables {
        let (rule, name) = read_one(reader, table, resources);
        if let Some(name) = name.filter(|name| !names.insert(name.value.clone())) {
            let fact = format!("two [[rule]] are called {:?}", name.value);
            reader.found.line(name.line, fact, "give one of them another name");
        }
        rules.extend(rule);
    }
    rules
}

fn read_one<'t>(
    reader: &mut Reader<'t>,
    mut table: Table<'t>,
    resources: &BTreeSet<String>,
) -> (Option<Rule>, Option<At<String>>) {
    reader.need(&table, "name", "\"isolated\"");
    reader.need(&table, "if", "\"all of ping.* is down\"");
    reader.need(&table, "action", "\"stop\"");
    let name = reader.text(&mut table, "name").filter(|name| check_name(reader, "[[rule]]", name));
    let text = reader.text(&mut table, "if");
    let action = reader.choice(&mut table, "action", &Action::ALL);
    reader.finish(table);
    let condition = text.as_ref().and_then(|text| understood(reader, text, resources));
    let rule = name.clone().zip(text).zip(condition).zip(action);
    let rule = rule.map(|(((name, text), condition), action)| Rule {
        name: name.value,
        text: text.value,
        condition,
        action,
    });
    (rule, name)
}

fn understood(reader: &mut Reader<'_>, text: &At<String>, resources: &BTreeSet<String>) -> Option<Condition> {
    let condition = match parse(&text.value) {
        Ok(condition) => condition,
        Err((at, wanted)) => {
            let rest: String = text.value.chars().skip(at).take(40).collect();
            let where_ = if rest.is_empty() { "at its end".into() } else { format!("at {rest:?}") };
            let fact = format!("[[rule]] if is not understood {where_}");
            let example = "as in: ping.router is down and not tcp.web is up";
            let remedy = if wanted.is_empty() {
                example.into()
            } else {
                format!("{wanted} is wanted there, {example}")
            };
            reader.found.line(text.line, fact, remedy);
            return None;
        }
    };
    let selectors: Vec<Selector> = condition.selectors().into_iter().cloned().collect();
    let lost = selectors.iter().find(|selector| !resources.iter().any(|name| selector.selects(name)));
    if let Some(lost) = lost {
        let shown = match lost {
            Selector::One(name) => name.clone(),
            Selector::Every(start) => format!("{start}*"),
        };
        let known: Vec<&str> = resources.iter().map(String::as_str).collect();
        let known = if known.is_empty() { "there are none".into() } else { known.join(", ") };
        let fact = format!("[[rule]] if names {shown}, and no check and no process is called so");
        reader.found.line(text.line, fact, format!("known: {known}"));
        return None;
    }
    Some(condition)
}

/// The condition that a text means.
///
/// # Errors
/// Where it is not understood, in characters, and what is wanted there.
pub(crate) fn parse(text: &str) -> Result<Condition, (usize, String)> {
    if text.len() > CONDITION_BYTES {
        return Err((CONDITION_BYTES, format!("an end, after {CONDITION_BYTES} bytes at most,")));
    }
    if let Some(at) = too_deep(text) {
        return Err((at, format!("no more than {DEPTH} parentheses within each other")));
    }
    let whole = delimited(multispace0, condition, (multispace0, cut_err(eof.context(wants("and, or")))));
    let mut whole = whole;
    whole.parse(text).map_err(|error| {
        let at = text[..error.offset()].chars().count();
        let mut wanted = error.inner().context().filter_map(|context| match context {
            StrContext::Expected(StrContextValue::Description(what)) => Some(*what),
            _ => None,
        });
        (at, wanted.next().unwrap_or_default().to_owned())
    })
}

/// The character with which there are too many open parentheses.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    text.chars().position(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEPTH
    })
}

type Parsed<T> = Result<T, ErrMode<ContextError>>;

fn wants(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

/// A word that is not the beginning of a longer one.
fn word<'i>(text: &'static str) -> impl Parser<&'i str, (), ErrMode<ContextError>> {
    take_while(1.., |c: char| c.is_ascii_alphanumeric() || "._-*".contains(c))
        .verify(move |found: &str| found == text)
        .void()
}

fn spaced<'i>(text: &'static str) -> impl Parser<&'i str, (), ErrMode<ContextError>> {
    delimited(multispace1, word(text), multispace1)
}

fn condition(input: &mut &str) -> Parsed<Condition> {
    let all: Vec<Condition> = separated(1.., all_of, alternative("or")).parse_next(input)?;
    Ok(joined(all, Condition::Or))
}

fn all_of(input: &mut &str) -> Parsed<Condition> {
    let all: Vec<Condition> = separated(1.., one, alternative("and")).parse_next(input)?;
    Ok(joined(all, Condition::And))
}

/// Between two conditions, of which each may stand in parentheses.
fn alternative<'i>(text: &'static str) -> impl Parser<&'i str, (), ErrMode<ContextError>> {
    delimited(multispace0, word(text), multispace0)
}

fn joined(all: Vec<Condition>, join: fn(Box<Condition>, Box<Condition>) -> Condition) -> Condition {
    let joined = all.into_iter().reduce(|one, other| join(Box::new(one), Box::new(other)));
    joined.expect("there is at least one")
}

fn one(input: &mut &str) -> Parsed<Condition> {
    let nots: Vec<()> = repeat(0.., terminated(word("not"), multispace0)).parse_next(input)?;
    let inside = delimited(
        (multispace0, '(', multispace0),
        condition,
        (multispace0, cut_err(')'.context(wants("a closing parenthesis")))),
    );
    let inner = alt((inside, counted, named)).context(wants("a condition")).parse_next(input)?;
    let odd = nots.len() % 2 == 1;
    Ok(if odd { Condition::Not(Box::new(inner)) } else { inner })
}

#[derive(Clone, Copy)]
enum Count {
    All,
    Any,
    AtLeast(usize),
}

fn counted(input: &mut &str) -> Parsed<Condition> {
    let number = dec_uint::<_, u16, _>.map(usize::from);
    let at_least = preceded((word("at"), spaced("least")), cut_err(number.context(wants("a number"))));
    let count =
        alt((word("all").value(Count::All), word("any").value(Count::Any), at_least.map(Count::AtLeast)));
    let count = terminated(count, spaced("of")).parse_next(input)?;
    let selector = cut_err(selector.context(wants("the name of a check, or ping.*"))).parse_next(input)?;
    cut_err(preceded(multispace1, word("is")).context(wants("is"))).parse_next(input)?;
    let health = cut_err(preceded(multispace1, health).context(wants("init, up, down or unknown")))
        .parse_next(input)?;
    Ok(match count {
        Count::All => Condition::All(selector, health),
        Count::Any => Condition::AtLeast(1, selector, health),
        Count::AtLeast(count) => Condition::AtLeast(count, selector, health),
    })
}

fn named(input: &mut &str) -> Parsed<Condition> {
    let name = resource.parse_next(input)?;
    cut_err(preceded(multispace1, word("is")).context(wants("is"))).parse_next(input)?;
    let not = opt(preceded(multispace1, word("not"))).parse_next(input)?;
    let health = cut_err(preceded(multispace1, health).context(wants("init, up, down or unknown")))
        .parse_next(input)?;
    let is = Condition::is(name, health);
    Ok(if not.is_some() { Condition::Not(Box::new(is)) } else { is })
}

fn resource<'i>(input: &mut &'i str) -> Parsed<&'i str> {
    let reserved = ["not", "and", "or", "is", "all", "any", "at"];
    take_while(1.., |c: char| c.is_ascii_alphanumeric() || "._-".contains(c))
        .verify(move |name: &str| !reserved.contains(&name))
        .parse_next(input)
}

fn selector(input: &mut &str) -> Parsed<Selector> {
    let name = take_while(0.., |c: char| c.is_ascii_alphanumeric() || "._-".contains(c));
    let (name, star): (&str, Option<char>) = (name, opt('*')).parse_next(input)?;
    match star {
        Some(_) => Ok(Selector::Every(name.to_owned())),
        None if name.is_empty() => Err(ErrMode::Backtrack(ContextError::new())),
        None => Ok(Selector::One(name.to_owned())),
    }
}

fn health(input: &mut &str) -> Parsed<Health> {
    take_while(1.., |c: char| c.is_ascii_alphanumeric())
        .verify_map(|word: &str| Health::ALL.into_iter().find(|health| health.name() == word))
        .parse_next(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> bool {
        let healths = [("ping.a", Health::Down), ("ping.b", Health::Up), ("tcp.web", Health::Up)];
        let healths = healths.into_iter().map(|(name, health)| (name.to_owned(), health)).collect();
        parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}")).holds(&healths)
    }

    #[test]
    fn conditions_mean_what_they_say() {
        let good = [
            "ping.a is down",
            "ping.a is not up",
            "not ping.a is up",
            "not not ping.a is down",
            " ( ping.a is down ) ",
            "ping.a is down and tcp.web is up",
            "ping.a is up or ping.b is up",
            "ping.a is up and ping.b is down or tcp.web is up",
            "not (ping.a is up and (ping.b is down or tcp.web is up))",
            "(ping.a is down)and(ping.b is up)",
            "any of ping.* is down",
            "at least 2 of * is up",
            "not all of ping.* is down",
            "all of tcp.web is up",
        ];
        assert!(good.iter().all(|text| holds(text)));
        let bad = ["ping.a is up", "all of ping.* is down", "at least 3 of * is up", "not (tcp.web is up)"];
        assert!(!bad.iter().any(|text| holds(text)));
    }

    #[test]
    fn what_is_not_understood_is_shown_where_it_is() {
        let cases = [
            ("", 0, "a condition"),
            ("ping.a", 6, "is"),
            ("ping.a is", 9, "init, up, down or unknown"),
            ("ping.a is dead", 10, "init, up, down or unknown"),
            ("ping.a is up ping.b is up", 13, "and, or"),
            ("ping.a is up and", 13, "and, or"),
            ("(ping.a is up", 13, "a closing parenthesis"),
            ("at least x of ping.* is up", 9, "a number"),
            ("any of ping.* are up", 14, "is"),
        ];
        for (text, at, wanted) in cases {
            assert_eq!(parse(text), Err((at, wanted.to_owned())), "{text}");
        }
        let nested = |depth: usize| {
            parse(&format!("{}ping.a is up{}", "(".repeat(depth), ")".repeat(depth))).map_err(|(at, _)| at)
        };
        assert!(nested(DEPTH).is_ok());
        assert_eq!(nested(DEPTH + 1), Err(DEPTH), "it is refused, not a crash");
        assert_eq!(nested(CONDITION_BYTES), Err(CONDITION_BYTES), "and so is what is too long");
        let nots = "not ".repeat(200) + "ping.a is up";
        assert_eq!(parse(&nots), parse("ping.a is up"));
    }
}
