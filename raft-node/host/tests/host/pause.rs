//! A process that stands still, as its parent sees it.

use std::process::{Command, Stdio};
use std::time::Duration;

use farm_host::pause::stand_still;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// In the environment of the one that stands still.
const STANDS: &str = "FARM_TEST_STANDS_STILL";

#[test]
fn a_process_stands_still_and_goes_on_by_itself() {
    if std::env::var_os(STANDS).is_some() {
        stand_still(Duration::from_millis(300)).unwrap();
        return;
    }
    let name = "pause::a_process_stands_still_and_goes_on_by_itself";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let mut child = child.args([name, "--exact"]).env(STANDS, "1").stdout(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let seen =
        [WaitPidFlag::WUNTRACED, WaitPidFlag::WCONTINUED].map(|flag| waitpid(pid, Some(flag)).unwrap());
    assert_eq!(seen, [WaitStatus::Stopped(pid, Signal::SIGSTOP), WaitStatus::Continued(pid)]);
    assert!(child.wait().unwrap().success());
}
