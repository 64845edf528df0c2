//! Deaths and appearances of processes.

use std::time::Duration;

use farm_host::processes::{Scope, Spec, Verdict, Watch, What};
use farm_host::script::Outcome;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scripts::Place;

const LONG: Duration = Duration::from_secs(60);

fn spec(place: &Place, what: What, at_least: u32, at_most: Option<u32>) -> Spec {
    Spec { what, scope: Scope::Cgroup(place.group.path().to_owned()), at_least, at_most }
}

/// Returns when they have become what they are to be.
async fn sleeps(place: &Place, count: usize) {
    let text = "(setsid sleep 600 &)\n".repeat(count);
    assert_eq!(place.run(&text, LONG).await, Outcome::Exited(0));
    let sleeps =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n");
    while place.group.processes().unwrap().iter().filter(|pid| sleeps(pid)).count() < count {
        tokio::task::yield_now().await;
    }
}

fn is_down(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Down(_))
}

#[tokio::test]
async fn a_death_is_seen_and_so_is_who_comes_instead() {
    let place = Place::new("death");
    sleeps(&place, 1).await;
    let mut watch = Watch::new(spec(&place, What::Command("sleep".into()), 1, None));
    assert_eq!(watch.changed().await, Verdict::Up);
    let pid = place.group.processes().unwrap()[0];
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    assert_eq!(watch.changed().await, Verdict::Down("no process sleep runs".into()));
    sleeps(&place, 1).await;
    assert_eq!(watch.changed().await, Verdict::Up);
}

#[tokio::test]
async fn too_few_and_too_many_are_down() {
    let place = Place::new("count");
    sleeps(&place, 2).await;
    let pattern = || What::CommandLine(regex::Regex::new("^sleep 6[0-9]+$").unwrap());
    let few = Watch::new(spec(&place, pattern(), 3, None)).changed().await;
    assert_eq!(few, Verdict::Down("2 processes like ^sleep 6[0-9]+$ run, 3 should".into()));
    assert!(is_down(&Watch::new(spec(&place, pattern(), 1, Some(1))).changed().await));
    assert_eq!(Watch::new(spec(&place, pattern(), 2, Some(2))).changed().await, Verdict::Up);
    let other = What::CommandLine(regex::Regex::new("nginx").unwrap());
    assert!(is_down(&Watch::new(spec(&place, other, 1, None)).changed().await));
}

/// Another one of the same name on the machine is not the module's.
#[tokio::test]
async fn only_those_in_the_group_count() {
    let (ours, theirs) = (Place::new("ours"), Place::new("theirs"));
    sleeps(&theirs, 1).await;
    let mut watch = Watch::new(spec(&ours, What::Command("sleep".into()), 1, None));
    assert!(is_down(&watch.changed().await));
    let host = Spec { scope: Scope::Host, ..spec(&ours, What::Command("sleep".into()), 1, None) };
    assert_eq!(Watch::new(host).changed().await, Verdict::Up);
}

/// A zombie has ended: it only waits for its parent, here this test.
#[tokio::test]
async fn a_zombie_does_not_run() {
    let place = Place::new("zombie");
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "echo 0 > \"$0\"/cgroup.procs && exec sleep 600"])
        .arg(place.group.path())
        .spawn()
        .unwrap();
    let mut watch = Watch::new(spec(&place, What::Command("sleep".into()), 1, None));
    while watch.changed().await != Verdict::Up {}
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
    assert!(is_down(&watch.changed().await));
    child.wait().unwrap();
}

#[tokio::test]
async fn a_unit_where_there_is_no_systemd_says_so() {
    let spec =
        Spec { what: What::Unit("nginx.service".into()), scope: Scope::Host, at_least: 1, at_most: None };
    match Watch::new(spec).changed().await {
        Verdict::Down(why) => assert!(why.contains("nginx.service"), "{why}"),
        Verdict::Up => panic!("nothing runs"),
    }
}

/// Who writes the log bears the name of the module; the shell that is about to become a script, even that of the script.
#[tokio::test]
async fn helpers_are_not_the_application() {
    let place = Place::new("helpers");
    let mark = format!("application-{}", std::process::id());
    let enter = "echo 0 > \"$0\"/cgroup.procs && exec \"$@\"";
    let inside = |program: &[&str]| {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", enter]).arg(place.group.path()).args(program).current_dir(place.directory.path());
        command.stdin(std::process::Stdio::piped()).spawn().unwrap()
    };
    let (waiting, reading) = (place.file("waiting"), place.file("applog"));
    std::fs::create_dir(&waiting).unwrap();
    nix::unistd::mkfifo(&waiting.join("cgroup.procs"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(&reading, "read x").unwrap();
    std::os::unix::fs::symlink("/bin/sh", place.file("farmd")).unwrap();
    let mut helpers = [
        inside(&["./farmd", "applog", "--label", &mark]),
        // It waits for who reads the pipe.
        inside(&["/bin/sh", "-c", farm_host::script::ENTER, waiting.to_str().unwrap(), &mark]),
    ];
    for scope in [Scope::Cgroup(place.group.path().to_owned()), Scope::Host] {
        for helper in &helpers {
            let line = format!("/proc/{}/cmdline", helper.id());
            while !is_in(&place, helper.id()) || std::fs::read_to_string(&line).unwrap().contains(enter) {
                tokio::task::yield_now().await;
            }
        }
        let what = What::CommandLine(regex::Regex::new(&mark).unwrap());
        let mut watch = Watch::new(Spec { what, scope, at_least: 1, at_most: None });
        assert!(is_down(&watch.changed().await));
        let mut application = inside(&["/bin/sh", "-c", "read x", &mark]);
        assert_eq!(watch.changed().await, Verdict::Up);
        application.kill().unwrap();
        application.wait().unwrap();
    }
    for helper in &mut helpers {
        helper.kill().unwrap();
        helper.wait().unwrap();
    }
}

fn is_in(place: &Place, pid: u32) -> bool {
    place.group.processes().unwrap().contains(&pid)
}
