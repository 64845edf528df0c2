//! Farm's own helper processes: they bear names of modules and units in their command lines, but are no application's.

use crate::script::ENTER;

/// Has a process print the properties of a unit.
pub(crate) const SHOW: [&str; 3] = ["show", "--property=MainPID,ActiveState,SubState,ControlGroup", "--"];
/// Has a process look up a name.
pub(crate) const LOOKUP: [&str; 2] = ["ahosts", "--"];

/// Whether a command line is that of a helper: who writes an application log (`farmd applog`), the shell that enters a
/// group before it becomes a script, and who is asked about units and names.
pub(crate) fn is_helper(arguments: &[&[u8]]) -> bool {
    let Some((program, arguments)) = arguments.split_first() else { return false };
    let begins = |with: &[&str]| {
        with.iter().zip(arguments).all(|(a, b)| a.as_bytes() == *b) && arguments.len() >= with.len()
    };
    match program.rsplit(|byte| *byte == b'/').next() {
        Some(b"farmd") => begins(&["applog"]),
        Some(b"systemctl") => begins(&SHOW),
        Some(b"getent") => begins(&LOOKUP),
        _ => begins(&["-c", ENTER]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(arguments: &[&str]) -> bool {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        is_helper(&arguments)
    }

    #[test]
    fn helpers_are_known_by_their_arguments() {
        assert!(is(&["/usr/sbin/farmd", "applog", "--label", "start_both", "/var/log/farm/web"]));
        assert!(is(&["/bin/sh", "-c", ENTER, "/sys/fs/cgroup/farm/web", "/var/lib/farm/web/bin/start_both"]));
        assert!(is(&[&["systemctl"][..], &SHOW, &["web.service"]].concat()));
        assert!(is(&[&["getent"][..], &LOOKUP, &["web"]].concat()));
        assert!(!is(&["/usr/sbin/farmd"]), "the daemon itself");
        assert!(!is(&["applog", "web"]));
        assert!(!is(&["/bin/sh", "-c", "exec web"]));
        assert!(!is(&["systemctl", "show"]));
        assert!(!is(&[]));
    }
}
