//! Scripts that behave as they like, the groups they run in, and the log of what they say.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use farm_host::applog::{self, Limits};
use farm_host::cgroup::Cgroup;
use farm_host::script::{Outcome, Script};
use tempfile::TempDir;

/// Long enough for any machine; what is asserted is what happens, not when.
const LONG: Duration = Duration::from_secs(60);

/// A directory and a group for one test; what runs in it ends with the value.
pub struct Place {
    pub directory: TempDir,
    pub group: Cgroup,
}

impl Place {
    pub fn new(name: &str) -> Self {
        let group = Cgroup::open(&format!("farm-test-{}-{name}", std::process::id())).unwrap();
        Self { directory: tempfile::tempdir().unwrap(), group }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a script. By another process: one that another test forks meanwhile would keep the file open for writing,
    /// and who executes it would hear that it is busy.
    pub fn program(&self, text: &str) -> PathBuf {
        let path = self.file("script");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let written = Command::new("/bin/sh").args(["-c", write]).arg(&path).arg(text).status();
        assert!(written.unwrap().success());
        path
    }

    pub fn script(&self, program: PathBuf, limit: Duration) -> Script {
        Script {
            program,
            arguments: vec!["STOP".into(), "WAIT".into()],
            environment: vec![("FARM_MODULE".into(), "web".into())],
            directory: self.directory.path().to_owned(),
            cgroup: self.group.path().to_owned(),
            output: File::create(self.file("output")).unwrap(),
            limit,
        }
    }

    pub async fn run(&self, text: &str, limit: Duration) -> Outcome {
        self.script(self.program(text), limit).run().await
    }

    pub fn output(&self) -> String {
        fs::read_to_string(self.file("output")).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.group.kill().unwrap();
        let gone = |group: &Cgroup| !group.is_populated().unwrap();
        while !gone(&self.group) {
            std::thread::yield_now();
        }
        self.group.remove().unwrap();
    }
}

#[tokio::test]
async fn a_script_has_its_arguments_its_environment_and_nothing_else() {
    let place = Place::new("plain");
    let said = place.run("echo \"$@\" $FARM_MODULE ${HOME-none}; pwd; echo oops >&2; exit 3", LONG).await;
    assert_eq!(said, Outcome::Exited(3));
    let at = place.directory.path().canonicalize().unwrap();
    assert_eq!(place.output(), format!("STOP WAIT web none\n{}\noops\n", at.display()));
    assert_eq!(place.run("kill -9 $$", LONG).await, Outcome::Signalled(9));
    // The daemon's own are not for applications.
    place.run("umask; cat /proc/self/oom_score_adj", LONG).await;
    assert_eq!(place.output(), "0022\n0\n");
}

#[tokio::test]
async fn what_cannot_be_run_says_so() {
    let place = Place::new("norun");
    let missing = place.script(place.file("missing"), LONG).run().await;
    assert!(matches!(missing, Outcome::NotRun(_)), "{missing:?}");
    let program = place.program("true");
    fs::write(&program, "#!/no/such/shell\n").unwrap();
    let broken = place.script(program, LONG).run().await;
    assert!(matches!(broken, Outcome::NotRun(_)), "{broken:?}");
}

#[tokio::test]
async fn what_it_leaves_running_stays_in_the_group_until_that_is_killed() {
    let place = Place::new("daemon");
    let said = place.run("sleep 600 & (setsid sleep 601 &) ; exit 0", LONG).await;
    assert_eq!(said, Outcome::Exited(0), "the script does not wait for what it leaves");
    assert!(place.group.processes().unwrap().len() >= 2);
    assert!(place.group.is_populated().unwrap());
    place.group.kill().unwrap();
    place.group.emptied().await.unwrap();
    assert_eq!(place.group.processes().unwrap(), []);
    assert!(!place.group.is_populated().unwrap());
}

#[tokio::test]
async fn one_that_hangs_and_ignores_the_signal_is_killed_and_its_daemons_are_not() {
    let place = Place::new("hang");
    let text = "trap '' TERM; (setsid sleep 600 &); while :; do sleep 0.1; done";
    assert_eq!(place.run(text, Duration::from_millis(300)).await, Outcome::TimedOut);
    // A killed process is listed until it is reaped.
    let left = loop {
        let left = place.group.processes().unwrap();
        if left.len() <= 1 {
            break left;
        }
        tokio::task::yield_now().await;
    };
    let line = fs::read_to_string(format!("/proc/{}/cmdline", left[0])).unwrap();
    assert_eq!(line, "sleep\x00600\x00");
}

/// Its shell ends at the signal, what that waited for does not: nothing of its process group may stay.
#[tokio::test]
async fn who_ignores_the_signal_is_killed_though_the_script_itself_has_ended() {
    let place = Place::new("deaf");
    let text = "(trap '' TERM; touch deaf; exec sleep 600) & while :; do sleep 0.1; done";
    assert_eq!(place.run(text, Duration::from_secs(2)).await, Outcome::TimedOut);
    assert!(place.file("deaf").exists(), "it had no time to become deaf");
    tokio::time::timeout(LONG, place.group.emptied()).await.expect("it stays").unwrap();
}

/// The script's shell ends at the signal; what that waited for gets its time to end in order.
#[tokio::test]
async fn who_takes_its_time_after_the_signal_ends_in_order_though_the_script_itself_has_ended() {
    let place = Place::new("tidy");
    let child = "trap 'sleep 0.1; touch tidied; exit 0' TERM; touch ready; while :; do sleep 0.1; done";
    let text = format!("sh -c \"{child}\" & while :; do sleep 0.1; done");
    assert_eq!(place.run(&text, Duration::from_secs(2)).await, Outcome::TimedOut);
    assert!(place.file("ready").exists(), "it had no time to begin");
    assert!(place.file("tidied").exists(), "it was killed at its work");
    place.group.emptied().await.unwrap();
}

#[tokio::test]
async fn one_that_nobody_waits_for_any_more_is_killed() {
    let place = Place::new("dropped");
    let begun = place.file("begun");
    let run = place.run("touch begun; sleep 600", LONG);
    let waited = async {
        while !begun.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! { said = run => panic!("{said:?}"), () = waited => {} }
    place.group.emptied().await.unwrap();
}

#[tokio::test]
async fn a_group_is_emptied_though_its_processes_fork_all_the_time() {
    let place = Place::new("forks");
    let text = "for i in $(seq 50); do (while :; do sleep 0.01; done) & done; exit 0";
    assert_eq!(place.run(text, LONG).await, Outcome::Exited(0));
    place.group.kill().unwrap();
    place.group.emptied().await.unwrap();
    assert_eq!(place.group.processes().unwrap(), []);
}

#[tokio::test]
async fn a_group_is_found_again_by_its_name() {
    let place = Place::new("again");
    place.run("(setsid sleep 600 &); exit 0", LONG).await;
    let again = Cgroup::open(&format!("farm-test-{}-again", std::process::id())).unwrap();
    assert_eq!((again.path(), again.is_populated().unwrap()), (place.group.path(), true));
    assert!(again.remove().is_err(), "something runs in it");
}

/// As before Linux 5.14. A file that the kernel does not have cannot be made in a group either.
#[test]
fn where_a_group_cannot_be_killed_at_once_its_processes_are_killed_one_by_one() {
    let group = tempfile::tempdir().unwrap();
    let mut children: Vec<_> =
        (0..5).map(|_| std::process::Command::new("sleep").arg("600").spawn().unwrap()).collect();
    let listed: String = children.iter().map(|child| format!("{}\n", child.id())).collect();
    fs::write(group.path().join("cgroup.procs"), listed).unwrap();
    let killed = Cgroup::at(group.path()).kill();
    // Whatever came of it, none of them may stay.
    let made = group.path().join("cgroup.kill").exists();
    if made || killed.is_err() {
        children.iter_mut().for_each(|child| child.kill().unwrap());
    }
    for child in &mut children {
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    killed.unwrap();
    assert!(!made);
}

/// As the kernel lists those of another PID namespace. To kill 0 would be to kill this test, and who started it.
#[test]
fn a_process_without_a_number_is_none() {
    let group = tempfile::tempdir().unwrap();
    fs::write(group.path().join("cgroup.procs"), "0\n42\n0\n").unwrap();
    assert_eq!(Cgroup::at(group.path()).processes().unwrap(), [42]);
}

/// The controller comes down from the root only by every group in between.
#[test]
fn the_processor_is_shared_out_from_the_first_group_that_can() {
    let root = tempfile::tempdir().unwrap();
    let (farm, modules) = (root.path().join("farm"), root.path().join("farm/modules"));
    let web = modules.join("web");
    fs::create_dir_all(&web).unwrap();
    for (group, has) in [(root.path(), "cpu io\n"), (&farm, ""), (&modules, ""), (&web, "")] {
        fs::write(group.join("cgroup.controllers"), has).unwrap();
        fs::write(group.join("cgroup.subtree_control"), "").unwrap();
    }
    let enabled = |group: &Path| fs::read_to_string(group.join("cgroup.subtree_control")).unwrap();
    assert!(!Cgroup::at(&web).set_weight(50).unwrap(), "these directories get no cpu.weight");
    assert_eq!([root.path(), &farm, &modules, &web].map(enabled), ["+cpu", "+cpu", "+cpu", ""]);
    // What has it already needs nothing of those above.
    fs::write(farm.join("cgroup.controllers"), "cpu\n").unwrap();
    fs::write(root.path().join("cgroup.subtree_control"), "").unwrap();
    fs::write(web.join("cpu.weight"), "100\n").unwrap();
    assert!(Cgroup::at(&web).set_weight(50).unwrap());
    assert_eq!(enabled(root.path()), "");
    assert_eq!(fs::read_to_string(web.join("cpu.weight")).unwrap(), "50");
}

#[test]
fn a_name_does_not_lead_out_of_the_hierarchy() {
    for name in ["", "/tmp/farm-test", "../farm-test", "farm-test/../..", "."] {
        let refused = Cgroup::open(name).map_err(|error| error.kind());
        assert_eq!(refused, Err(std::io::ErrorKind::InvalidInput), "{name:?}");
    }
}

const SMALL: Limits = Limits { file_bytes: 2_000, files: 2, line_bytes: 100, lines_per_second: 100_000 };

fn log_of(directory: &Path) -> Vec<String> {
    let lines = applog::tail(directory, usize::MAX).unwrap().0;
    lines.iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn the_log_has_lines_whatever_was_written() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let long = "x".repeat(300);
    let input = [b"one\ntwo\xff\n".as_slice(), long.as_bytes(), b"\n\x1b[31mred\nlast"].concat();
    applog::pump(input.as_slice(), at, "start_both", &SMALL).unwrap();
    let cut = format!("start_both: {} …", "x".repeat(100));
    let red = "start_both: \u{fffd}[31mred";
    assert_eq!(log_of(at), ["start_both: one", "start_both: two\u{fffd}", &cut, red, "start_both: last"]);
}

#[test]
fn the_log_is_rotated_and_never_grows_beyond_its_files() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let input: String = (0..1_000).map(|n| format!("line {n}\n")).collect();
    std::thread::scope(|scope| {
        for label in ["a", "b"] {
            let input = &input;
            scope.spawn(move || applog::pump(input.as_bytes(), at, label, &SMALL).unwrap());
        }
    });
    let mut sizes: Vec<(String, u64)> = fs::read_dir(at)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    sizes.sort();
    let names: Vec<&str> = sizes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["log", "log.1", "log.2"]);
    // Two that write at once may each add a line before one of them notices.
    assert!(sizes.iter().all(|(_, size)| *size < SMALL.file_bytes + 2 * 200), "{sizes:?}");
    let last = log_of(at);
    assert!(last.iter().all(|line| line.starts_with("a: line ") || line.starts_with("b: line ")), "{last:?}");
    assert_eq!(applog::tail(at, 1).unwrap().0.len(), 1);
}

#[test]
fn a_flood_is_thinned_and_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let limits = Limits { file_bytes: 1 << 20, lines_per_second: 50, ..SMALL };
    let input = "flood\n".repeat(20_000);
    applog::pump(input.as_bytes(), scratch.path(), "s", &limits).unwrap();
    let lines = log_of(scratch.path());
    assert!(lines.len() < 20_000, "{}", lines.len());
    let lost: u64 = lines
        .iter()
        .filter_map(|l| {
            l.strip_prefix("s: ")?
                .strip_suffix(" lines were written too fast and are lost")?
                .parse::<u64>()
                .ok()
        })
        .sum();
    let kept = lines.iter().filter(|line| *line == "s: flood").count() as u64;
    assert_eq!(kept + lost, 20_000);
}

/// Not a test by itself: the process that reads for the next one.
#[test]
fn as_pump() {
    if let Some(directory) = std::env::var_os("FARM_TEST_PUMP") {
        applog::pump(std::io::stdin(), Path::new(&directory), "s", &SMALL).unwrap();
    }
}

#[tokio::test]
async fn the_pump_goes_on_when_who_started_it_has_ended() {
    let place = Place::new("pump");
    let log = tempfile::tempdir().unwrap();
    let mut script = place.script(
        place.program("mkfifo go; (echo before; read x < go; echo after) | \"$@\" > /dev/null & exit 0"),
        LONG,
    );
    let own = std::env::current_exe().unwrap();
    script.arguments = vec![own.into(), "--exact".into(), "scripts::as_pump".into(), "--nocapture".into()];
    script.environment.push(("FARM_TEST_PUMP".into(), log.path().into()));
    assert_eq!(script.run().await, Outcome::Exited(0));
    // Opening it waits for the reader.
    let go = place.file("go");
    tokio::task::spawn_blocking(move || {
        File::options().write(true).open(go).unwrap().write_all(b"\n").unwrap()
    })
    .await
    .unwrap();
    place.group.emptied().await.unwrap();
    assert_eq!(log_of(log.path()), ["s: before", "s: after"]);
}

/// Who stopped reading would end the application with SIGPIPE.
#[test]
fn the_pump_reads_on_where_the_log_cannot_be_written_and_says_so_later() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("later");
    let (read, mut write) = std::io::pipe().unwrap();
    let limits = Limits { file_bytes: 1 << 24, ..SMALL };
    // More than the pipe holds: some of it is read before there is a log.
    let flood = "x".repeat(99) + "\n";
    std::thread::scope(|scope| {
        let pump = scope.spawn(|| applog::pump(read, &at, "s", &limits));
        for _ in 0..10_000 {
            write.write_all(flood.as_bytes()).unwrap();
        }
        fs::create_dir(&at).unwrap();
        for _ in 0..10_000 {
            write.write_all(b"back\n").unwrap();
        }
        drop(write);
        pump.join().unwrap().unwrap();
    });
    let lines = log_of(&at);
    let lost = |line: &String| {
        line.strip_prefix("s: ")?
            .strip_suffix(" lines could not be written and are lost")?
            .parse::<usize>()
            .ok()
    };
    let lost: Vec<usize> = lines.iter().filter_map(lost).collect();
    let count = |text: String| lines.iter().filter(|line| **line == text).count();
    assert!(matches!(lost[..], [n] if n > 0), "{lost:?}");
    assert_eq!(count(format!("s: {}", flood.trim_end())) + lost[0], 10_000);
    assert_eq!(count("s: back".into()), 10_000);
}

#[test]
fn a_log_that_is_never_written_is_an_error_at_the_end_of_the_input() {
    let scratch = tempfile::tempdir().unwrap();
    let mut input = std::io::Cursor::new("lost\n".repeat(10_000));
    applog::pump(&mut input, &scratch.path().join("missing"), "s", &SMALL).unwrap_err();
    assert_eq!(input.position(), 50_000);
}

/// As it is between two steps of a rotation, and for ever where the daemon's machine fails there.
#[test]
fn the_older_files_are_read_though_the_newest_was_not_begun() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("log.1"), "older\n").unwrap();
    assert_eq!(applog::tail(scratch.path(), 5).unwrap().0, ["older"]);
}

/// However long its lines are: not all is read of what a program may have written into it.
#[test]
fn no_more_than_a_bounded_part_of_a_log_is_read() {
    const MIB: usize = 1 << 20;
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[&str]| fs::write(scratch.path().join(name), text.concat()).unwrap();
    write("log", &[&"x".repeat(20 * MIB), "\n\nend\n"]);
    write("log.1", &["older\n"]);
    let lines = applog::tail(scratch.path(), usize::MAX).unwrap().0;
    assert_eq!(lines[1..], ["", "end"]);
    let xs = 8 * MIB - "\n\nend\n".len();
    assert!(lines[0] == format!("…{}", "x".repeat(xs)), "{} bytes", lines[0].len());
    assert_eq!(applog::tail(scratch.path(), 1).unwrap().0, ["end"]);
    // A line that begins just there is not cut, and what is left is for the older file.
    write("log", &["cut\n", &"x".repeat(8 * MIB - 1), "\n"]);
    assert_eq!(applog::tail(scratch.path(), 9).unwrap().0, ["x".repeat(8 * MIB - 1)]);
    write("log", &[&"x".repeat(8 * MIB - 3), "\n"]);
    let lines = applog::tail(scratch.path(), 9).unwrap().0;
    assert_eq!((lines.len(), lines[0].as_str()), (2, "…r"));
    write("log", &[]);
    assert_eq!(applog::tail(scratch.path(), 9).unwrap().0, ["older"]);
}

#[test]
fn what_a_script_says_in_several_lines_is_one_of_the_log() {
    let scratch = tempfile::tempdir().unwrap();
    let forged = "one\n2026-01-31T06:00:00.123Z farmctl: two";
    applog::append(scratch.path(), "farmctl", forged, &SMALL).unwrap();
    assert_eq!(log_of(scratch.path()), ["farmctl: one\u{fffd}2026-01-31T06:00:00.123Z farmctl: two"]);
}

#[test]
fn a_log_that_is_followed_is_told_whole_also_while_its_files_change() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let limits = applog::Limits { file_bytes: 400, files: 2, line_bytes: 100, lines_per_second: 1000 };
    let say = |number: u32| applog::append(at, "x", &format!("line {number}"), &limits).unwrap();
    let (lines, mut cursor) = applog::tail(at, 5).unwrap();
    assert!(lines.is_empty());
    let mut heard = Vec::new();
    for number in 0..200 {
        say(number);
        // A file holds nine: some steps are within one, some over two.
        if number % 7 == 0 {
            let (lines, next) = applog::since(at, cursor).unwrap();
            heard.extend(lines);
            cursor = next;
        }
    }
    let (lines, next) = applog::since(at, cursor).unwrap();
    heard.extend(lines);
    let expected: Vec<String> = (0..200).map(|number| format!("x: line {number}")).collect();
    let heard: Vec<&str> = heard.iter().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(heard, expected);
    // Who sleeps for too long is told so.
    (0..100).for_each(say);
    let (lines, _) = applog::since(at, next).unwrap();
    assert!(lines[0].contains("is kept no more") && lines.last().unwrap().ends_with("line 99"), "{lines:?}");
}

#[test]
fn what_is_new_in_a_log_comes_in_bounded_pieces_of_whole_lines() {
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("log");
    let line = format!("{}\n", "y".repeat(99));
    std::fs::write(&log, line.repeat(10_000) + "half").unwrap();
    let (mut cursor, mut heard) = (applog::Cursor::default(), 0);
    loop {
        let (lines, next) = applog::since(scratch.path(), cursor).unwrap();
        if lines.is_empty() {
            break;
        }
        assert!(lines.len() < 3_000 && lines.iter().all(|l| l.len() == 99));
        (cursor, heard) = (next, heard + lines.len());
    }
    assert_eq!(heard, 10_000);
}
