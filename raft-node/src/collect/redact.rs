//! Takes secrets out of a text that somebody else is to read. What looks like one goes, also when it is none.

use std::sync::LazyLock;

use regex::Regex;

/// Stands where something was.
pub const REMOVED: &str = "[removed]";

/// A value behind a name that says what it is; names of files that hold one are none.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    let word =
        r"pass(?:wo?r?d|phrase)?|pwd|secret|token|credentials?|api[_-]?key|private[_-]?key|access[_-]?key";
    pattern(&format!(r#"(?im)^(.*?\b[\w.-]*(?:{word})(?:[_-]?\d+)?["']?[ \t]*[=:][ \t]*)(\S.*)$"#))
});
/// An option of a command: `--password hunter2`, `-p hunter2` is nobody's to know.
static OPTION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)((?:^|[\s'\x22])--?[\w-]*(?:password|passwd|secret|token|key)[ =])(\S+)"));
/// `https://user:word@host`.
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(://[^/\s:@]*:)([^/\s@]+)(@)"));
/// `Authorization: Bearer …`.
static HEADER: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)(\b(?:bearer|basic)\s+)([\w.~+/=-]{8,})"));
/// Keys in text (RFC 7468).
static KEY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)")
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern that is tested")
}

/// The text without them.
#[must_use]
pub fn redact(text: &str) -> String {
    let text = KEY.replace_all(text, REMOVED);
    let text = ADDRESS.replace_all(&text, format!("${{1}}{REMOVED}${{3}}"));
    let text = HEADER.replace_all(&text, format!("${{1}}{REMOVED}"));
    let text = OPTION.replace_all(&text, format!("${{1}}{REMOVED}"));
    NAMED.replace_all(&text, format!("${{1}}{REMOVED}")).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_somebody_could_use_goes() {
        for (text, left) in [
            ("password = \"hunter2\"", "password = [removed]"),
            ("  DB_PASSWORD: hunter2 # mine", "  DB_PASSWORD: [removed]"),
            ("export API_KEY=abc", "export API_KEY=[removed]"),
            ("\"token\": \"abc\",", "\"token\": [removed]"),
            ("smtp_pass='a b'", "smtp_pass=[removed]"),
            ("mysql --password hunter2 -h db", "mysql --password [removed] -h db"),
            ("mysql --password=hunter2 -h db", "mysql --password=[removed]"),
            ("url = \"postgres://shop:hunter2@db/x\"", "url = \"postgres://shop:[removed]@db/x\""),
            ("curl -H 'Authorization: Bearer abcdefgh.ijk'", "curl -H 'Authorization: Bearer [removed]'"),
            ("a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb", "a\n[removed]\nb"),
            ("-----BEGIN PRIVATE KEY-----\nMIIE, cut", "[removed]"),
        ] {
            assert_eq!(redact(text), left, "{text}");
        }
    }

    #[test]
    fn what_is_needed_to_help_stays() {
        for text in [
            "secret_file = \"/etc/farm/secret\"",
            "password_file = \"/etc/farm/mail\"",
            "name = \"node1\"\nip = \"192.0.2.11\"",
            "node2 does not renew its lease",
            "http://192.0.2.11:9010/metrics",
            "passed = 3",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    proptest! {
        #[test]
        fn a_value_behind_a_telling_name_never_stays(
            before in "[a-z_]{0,8}", value in "[A-Z0-9]{12,20}", blank in "[ \t]{0,3}", sign in "[=:]",
        ) {
            for word in ["password", "PASSWD", "secret", "Token", "api_key", "private-key", "credentials"] {
                let told = redact(&format!("one\n{before}{word}{blank}{sign}{blank}\"{value}\"\ntwo"));
                prop_assert!(!told.contains(&value), "{told}");
                prop_assert!(told.starts_with("one\n") && told.ends_with("\ntwo"), "{told}");
            }
        }
    }
}
