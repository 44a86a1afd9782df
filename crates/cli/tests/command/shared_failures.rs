//! Limits that several runs share, while runs are killed and folders fail: nothing bursts, and nobody waits for ever.
//!
//! The real binary and real time. A round kills at random moments; its seed is printed where it fails.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::shared::{assert_clean, blocked, call, noted, status, wait_for};
use crate::support::{Folder, end, now_ns};

/// The runs of a test. They are killed if it fails.
struct Runs(Vec<std::process::Child>);

impl Drop for Runs {
    fn drop(&mut self) {
        for run in &mut self.0 {
            let _ = run.kill();
            let _ = run.wait();
        }
    }
}

#[test]
fn a_command_keeps_its_permit_when_its_run_is_killed() {
    let folder = Folder::new();
    let mut killed = blocked(&folder, 1, &["1/300ms", "--shared", "api", "--fresh"]);
    wait_for(&folder, "api", 1, 0);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let next = folder.start(b"x\n", &["--shared", "api", "--", "sh", "-c", &noted(":")]);
    wait_for(&folder, "api", 1, 1);
    let seen = status(&folder, "api");
    let holder = &seen["holders"][0];
    assert_eq!(holder["state"].as_str(), Some("orphaned"), "{holder}");
    assert_eq!(holder["pid"].as_u64(), Some(u64::from(killed.id())));
    // Longer than the period, and than others take to notice that somebody has died.
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(folder.read("times"), "", "the next one waits for the command");
    assert_eq!(status(&folder, "api")["running"].as_u64(), Some(1));
    folder.write("go", "");
    let ran = end(next);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(assert_clean(&folder, "1/300ms"), 2);
}

#[test]
fn what_a_killed_run_waited_for_leaves_the_queue_though_its_command_runs_on() {
    let folder = Folder::new();
    let options = ["1/50ms", "--shared", "api", "--fresh", "-j3"];
    let mut killed = blocked(&folder, 5, &options);
    wait_for(&folder, "api", 1, 2);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let next = folder.start(b"x\n", &["--shared", "api", "--", "echo"]);
    wait_for(&folder, "api", 1, 1);
    assert_eq!(status(&folder, "api")["waiters"][0]["pid"].as_u64(), Some(u64::from(next.id())));
    assert_eq!(call(&folder, "set", &["api", "2/50ms"]).code, Some(0));
    let ran = end(next);
    assert_eq!((ran.code, &*ran.out), (Some(0), "x\n"), "{}", ran.err);
    assert_eq!(folder.read("times"), "", "the killed run's command still runs");
    folder.write("go", "");
    folder.wait_until(|folder| !folder.read("times").is_empty());
}

#[test]
fn a_command_that_closes_what_it_inherited_counts_until_its_run_is_killed() {
    let folder = Folder::new();
    // As ssh and sudo do.
    let script = "for fd in $(ls /proc/$$/fd); do [ $fd -gt 2 ] && eval \"exec $fd>&-\"; done; : > running; \
        n=0; until [ -e go ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done";
    let options = ["1/200ms", "--shared", "api", "--fresh", "--", "bash", "-c", script];
    let mut killed = folder.start(b"x\n", &options);
    folder.wait_until(|folder| folder.path("running").exists());
    killed.kill().unwrap();
    let killed_at = now_ns();
    killed.wait().unwrap();
    let ran = folder.run("x\n", &["--shared", "api", "--", "sh", "-c", &noted(":")]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let started: u64 = folder.read("times").split(' ').next().unwrap().parse().unwrap();
    assert!(started >= killed_at + 200_000_000, "its death is when it counts as ended");
    folder.write("go", "");
}

#[test]
fn whichever_run_is_killed_at_whatever_moment_nothing_bursts() {
    let seed = now_ns();
    println!("seed {seed}");
    let mut random = Random(seed | 1);
    let folder = Folder::new();
    let items = "x\n".repeat(1_000);
    let script = noted("sleep 0.0$(( $$ % 40 ))");
    let options =
        ["10/250ms", "--shared", "api", "--fresh", "-j3", "-q", "--", "sh", "-c", &script];
    let start = || folder.start(items.as_bytes(), &options);
    let mut runs = Runs(vec![start(), start(), start()]);
    for _ in 0..25 {
        std::thread::sleep(Duration::from_millis(random.below(150)));
        let at = usize::try_from(random.below(3)).unwrap();
        runs.0[at].kill().unwrap();
        runs.0[at].wait().unwrap();
        runs.0[at] = start();
    }
    // After all of that, everybody still gets permits.
    let before = folder.read("times").lines().count();
    folder.wait_until(|folder| folder.read("times").lines().count() > before + 25);
    drop(runs);
    // The commands that they have left behind end, and the next run gets its permit.
    let has_ended = |holder: &Value| holder["state"].as_str() == Some("gone");
    folder.wait_until(|folder| {
        status(folder, "api")["holders"].as_array().unwrap().iter().all(has_ended)
    });
    let ran = folder.run("x\n", &["--shared", "api", "--", "sh", "-c", &script]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(status(&folder, "api")["running"].as_u64(), Some(0));
    assert!(assert_clean(&folder, "10/250ms") > 25);
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % bound
    }
}

#[test]
fn a_full_disk_ends_the_run_and_does_not_hold_up_the_next_one() {
    let folder = Folder::new();
    // A file that is too long is an error here, and no signal.
    let script = "trap '' XFSZ; printf '1\\n2\\n3\\n' | exec \"$R\" run 20/1s --shared api --fresh -- sh -c '\
        : > running; until [ -e go ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done'";
    let run = folder.script(script).spawn().unwrap();
    folder.wait_until(|folder| folder.path("running").exists());
    let seen = status(&folder, "api");
    let id = i32::try_from(seen["holders"][0]["pid"].as_u64().unwrap()).unwrap();
    let limit = Rlimit { current: Some(1_000), maximum: Some(1_000) };
    prlimit(Pid::from_raw(id), Resource::Fsize, limit).unwrap();
    folder.write("go", "");
    let ran = end(run);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("1 ok, 0 failed, 2 never started"), "{}", ran.err);
    assert!(ran.err.contains("the shared limit fails, so nothing more is started: cannot write"));
    let ran = folder.run("x\n", &["--shared", "api", "--", "echo"]);
    assert_eq!((ran.code, &*ran.out), (Some(0), "x\n"), "{}", ran.err);
    assert_eq!(status(&folder, "api")["running"].as_u64(), Some(0));
}

#[test]
fn a_run_inside_a_command_of_the_same_limit_is_refused_if_it_could_never_run() {
    let folder = Folder::new();
    let inner = "echo x | \"$R\" run --shared api -- echo inner; echo $?";
    let outer = |limit: &str, name: &str, j: &str| {
        let options = [limit, "--shared", name, "--fresh", j, "--", "sh", "-c", inner];
        let mut command = folder.command(&options);
        command.env("R", env!("CARGO_BIN_EXE_ratelimit"));
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"x\n").unwrap();
        end(child)
    };
    let ran = outer("9/1h", "api", "-j1");
    assert_eq!(ran.out, "2\n", "{}", ran.err);
    assert!(ran.err.contains("and would wait for it for ever"), "{}", ran.err);
    assert_eq!(call(&folder, "set", &["api", "-j2"]).code, Some(0));
    assert_eq!(outer("9/1h", "api", "-j1").out, "inner x\n0\n");
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_before_anything_runs() {
    let folder = Folder::new();
    let run = |name: &str| folder.run("x\n", &["1/1s", "--shared", name, "--fresh", "--", "echo"]);
    folder.write("file", "");
    assert_eq!(run("./api.limit").code, Some(0));
    let path = folder.path("api.limit/state");
    fs::write(&path, vec![b'x'; 1 << 25]).unwrap();
    for (name, words) in [
        ("./file", "cannot use"),
        ("./no/parent", "cannot make the folder"),
        ("./api.limit", "the state in "),
    ] {
        let ran = run(name);
        assert_eq!((ran.code, &*ran.out), (Some(3), ""), "{name}: {}", ran.err);
        assert!(ran.err.contains(words), "{name}: {}", ran.err);
    }
    assert_eq!(call(&folder, "status", &["./api.limit"]).code, Some(3));
    let ran = call(&folder, "forget", &["./api.limit", "--yes"]);
    assert!(ran.code == Some(0) && ran.err.contains("damaged"), "{ran:?}");
    assert_eq!(run("./api.limit").out, "x\n");
}
