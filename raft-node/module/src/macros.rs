//! `%NAME%` in the strings of `module.toml`.

use std::collections::BTreeMap;

/// Bytes of one string of `module.toml`, macros replaced: a long command line. Else a small file could become a huge
/// definition.
pub(crate) const TEXT_BYTES: usize = 4096;

/// Fact and remedy.
pub(crate) type Wrong = (String, String);

/// `text` with each `%NAME%` replaced by its macro, and each `%%` by a percent sign.
pub(crate) fn expand(text: &str, macros: &BTreeMap<String, String>) -> Result<String, Wrong> {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        done.push_str(before);
        let name = after.split_once('%').filter(|(name, _)| name.is_empty() || is_name(name));
        let (name, after) = name.ok_or_else(|| lone(text))?;
        match macros.get(name) {
            _ if name.is_empty() => done.push('%'),
            Some(value) => done.push_str(value),
            None => return Err(unknown(name, macros)),
        }
        rest = after;
        if done.len() > TEXT_BYTES {
            break;
        }
    }
    done.push_str(rest);
    if done.len() > TEXT_BYTES {
        let fact = format!("the text has more than {TEXT_BYTES} bytes");
        return Err((fact, "put it into a file of the module".into()));
    }
    Ok(done)
}

fn lone(text: &str) -> Wrong {
    let start: String = text.chars().take(60).collect();
    (format!("{start:?} has a single %"), "write %% for a percent sign, %NAME% for a macro".into())
}

fn unknown(name: &str, macros: &BTreeMap<String, String>) -> Wrong {
    let known: Vec<&str> = macros.keys().map(String::as_str).collect();
    let known =
        if known.is_empty() { "there are none".into() } else { format!("known: {}", known.join(", ")) };
    let remedy = format!("add {name} to [macros], or write %% for a percent sign");
    (format!("%{name}% is no macro of this module ({known})"), remedy)
}

/// Whether a macro or a variable may be called so: `A-Z 0-9 _`, no digit first.
pub(crate) fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.len() <= 63
        && !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(legal)
}
