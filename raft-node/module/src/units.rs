//! Lengths of time and sizes, always with a unit.

use core::time::Duration;

/// Why a text is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoAmount {
    /// Only a number.
    Unit,
    /// Something else.
    Text,
}

fn only_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// `5m`, `1h 30m`, `0s`.
pub(crate) fn duration(text: &str) -> Result<Duration, NoAmount> {
    if only_digits(text.trim()) {
        return Err(NoAmount::Unit);
    }
    humantime::parse_duration(text).map_err(|_| NoAmount::Text)
}

/// Units of sizes.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `2MiB`, `64 KiB`.
pub(crate) fn size(text: &str) -> Result<u64, NoAmount> {
    let text = text.trim();
    if only_digits(text) {
        return Err(NoAmount::Unit);
    }
    let of = |(unit, factor): (&str, u64)| Some((text.strip_suffix(unit)?.trim_end(), factor));
    let (number, factor) = UNITS.into_iter().find_map(of).ok_or(NoAmount::Text)?;
    let number: u64 = number.parse().map_err(|_| NoAmount::Text)?;
    number.checked_mul(factor).ok_or(NoAmount::Text)
}

/// As people write it, in the largest unit that is exact.
pub(crate) fn size_text(bytes: u64) -> String {
    let exact = UNITS.into_iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    exact.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!([duration("5"), duration("0"), duration(" 1.5 ")], [Err(NoAmount::Unit); 3]);
        assert_eq!([duration("5x"), duration(""), duration("-5s")], [Err(NoAmount::Text); 3]);
        assert_eq!([size("2MiB"), size("64 KiB"), size("7B")], [Ok(2 << 20), Ok(64 << 10), Ok(7)]);
        assert_eq!([size("2"), size("2.5")], [Err(NoAmount::Unit); 2]);
        assert_eq!([size("2MB"), size("MiB"), size("99999999999GiB"), size("")], [Err(NoAmount::Text); 4]);
        assert_eq!([2 << 20, 1025, 0].map(size_text), ["2MiB", "1025B", "0B"]);
    }
}
