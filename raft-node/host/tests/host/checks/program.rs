//! Programs that check as they like.

use std::path::PathBuf;
use std::time::Duration;

use farm_host::cgroup::Cgroup;
use farm_host::check::{Check, Finding, Program};

use super::{LONG, SHORT, bad};
use crate::scripts::Place;

fn program(place: &Place, program: PathBuf) -> Program {
    Program {
        program,
        arguments: vec!["web".into(), "two words".into()],
        environment: vec![("FARM_MODULE".into(), "web".into())],
        directory: place.directory.path().to_owned(),
        cgroup: place.group.path().join("check"),
    }
}

async fn run(place: &Place, text: &str, limit: Duration) -> Finding {
    Check::Program(program(place, place.program(text))).run(limit).await
}

/// Returns when nothing of it runs.
async fn gone(place: &Place) {
    tokio::time::timeout(LONG, place.group.emptied()).await.expect("it stays").unwrap();
}

#[tokio::test]
async fn its_exit_status_is_the_finding_and_its_first_line_the_reason() {
    let place = Place::new("check-ends");
    assert_eq!(run(&place, "exit 0", LONG).await, Finding::Good);
    assert!(!place.group.path().join("check").exists(), "its group stays");
    assert_eq!(run(&place, "echo; echo disk full; echo more; exit 1", LONG).await, bad("disk full"));
    assert_eq!(run(&place, "echo disk full >&2; exit 1", LONG).await, bad("disk full"));
    assert_eq!(run(&place, "printf no; exit 1", LONG).await, bad("no"));
    assert_eq!(run(&place, "exit 1", LONG).await, bad("script ended with exit code 1"));
    assert_eq!(run(&place, "echo oops; exit 3", LONG).await, bad("script ended with exit code 3: oops"));
    assert_eq!(run(&place, "kill -TERM $$", LONG).await, bad("script was ended by signal 15"));
    let given = run(&place, "echo \"$1,$2,$FARM_MODULE,${HOME-none},$(pwd)\"; exit 1", LONG).await;
    let at = place.directory.path().canonicalize().unwrap();
    assert_eq!(given, bad(format!("web,two words,web,none,{}", at.display())));
}

#[tokio::test]
async fn what_cannot_be_run_is_unknown() {
    let place = Place::new("check-norun");
    let missing = Check::Program(program(&place, place.file("missing"))).run(LONG).await;
    assert!(matches!(&missing, Finding::Unknown(why) if why.contains("not found")), "{missing:?}");
    let program = Program { cgroup: place.file("no-group"), ..program(&place, place.program("exit 0")) };
    let outside = Check::Program(program).run(LONG).await;
    assert!(matches!(&outside, Finding::Unknown(why) if why.contains("control group")), "{outside:?}");
}

#[tokio::test]
async fn what_it_writes_is_bounded_and_made_readable() {
    let place = Place::new("check-flood");
    let flood = "head -c 20000000 /dev/zero | tr '\\0' x; exit 1";
    assert_eq!(run(&place, flood, LONG).await, bad("x".repeat(300)));
    assert_eq!(run(&place, "yes | head -c 20000000; exit 0", LONG).await, Finding::Good);
    assert_eq!(run(&place, "yes", SHORT).await, bad("script did not end within 300ms: y"));
    let odd = run(&place, "printf 'a\\377\\033[31mb\\r\\n'; exit 1", LONG).await;
    assert_eq!(odd, bad("a\u{fffd}\u{fffd}[31mb\u{fffd}"));
}

#[tokio::test]
async fn one_that_closes_its_outputs_is_waited_for() {
    let place = Place::new("check-closed");
    let text = "exec >&- 2>&-; sleep 0.1; touch waited; exit 1";
    assert_eq!(run(&place, text, LONG).await, bad("script ended with exit code 1"));
    assert!(place.file("waited").exists());
}

#[tokio::test]
async fn what_it_leaves_behind_is_killed_and_not_waited_for() {
    let place = Place::new("check-leaves");
    let text = "trap '' TERM; sleep 600 & (setsid sleep 601 &); echo bad; exit 1";
    assert_eq!(run(&place, text, LONG).await, bad("bad"));
    gone(&place).await;
}

#[tokio::test]
async fn one_that_hangs_forks_and_ignores_signals_is_killed_at_the_limit() {
    let place = Place::new("check-hangs");
    let text = "trap '' TERM; (setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.01; done' &)\n\
        touch begun; while :; do sleep 0.01; done";
    let limit = Duration::from_secs(2);
    assert_eq!(run(&place, text, limit).await, bad("script did not end within 2s"));
    assert!(place.file("begun").exists(), "it had no time to begin");
    gone(&place).await;
    // And the next one is none the worse for it.
    assert_eq!(run(&place, "exit 0", LONG).await, Finding::Good);
}

#[tokio::test]
async fn one_that_nobody_waits_for_any_more_is_killed_with_all_that_it_began() {
    let place = Place::new("check-dropped");
    let check =
        Check::Program(program(&place, place.program("(setsid sleep 600 &); touch begun; sleep 600")));
    let begun = async {
        while !place.file("begun").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! { found = check.run(LONG) => panic!("{found:?}"), () = begun => {} }
    gone(&place).await;
}

/// As a daemon finds it that was killed in the midst of a check.
#[tokio::test]
async fn what_is_in_its_group_before_is_killed() {
    let place = Place::new("check-before");
    let group = Cgroup::at(&place.group.path().join("check"));
    std::fs::create_dir_all(group.path()).unwrap();
    let mut old = place.script(place.program("(setsid sleep 600 &); exit 0"), LONG);
    old.cgroup = group.path().to_owned();
    old.run().await;
    let [old] = group.processes().unwrap()[..] else { panic!("{:?}", group.processes()) };
    let text = format!("if grep -x {old} {}/cgroup.procs; then exit 1; fi", group.path().display());
    assert_eq!(run(&place, &text, LONG).await, Finding::Good);
}
