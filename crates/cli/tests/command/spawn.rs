//! Where a process cannot be started: for want of descriptors it waits, else it is an error that says
//! what is wrong. The real binary and real time; nothing depends on it.

use std::fs::{Permissions, set_permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;

use crate::support::{FREE, Folder, end};
use rustix::process::{Pid, Signal, kill_process};

fn executable(folder: &Folder, name: &str, content: impl AsRef<[u8]>) {
    folder.write(name, content);
    set_permissions(folder.path(name), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn more_at_once_than_there_are_descriptors_all_run_and_none_is_used_up() {
    let folder = Folder::new();
    // As many as the limit allows: a start that had used up its permit would leave the last without.
    let script = "ulimit -n 100; seq 200 | \"$R\" run 200/1h -j200 --log log.csv -- \
        sh -c 'sleep 0.2; echo $1' x";
    let ran = folder.sh(script);
    assert_eq!(
        (ran.code, ran.out),
        (Some(0), (1..=200).map(|item: i32| item.to_string() + "\n").collect())
    );
    let rows = folder.log("log.csv");
    assert_eq!(rows.len(), 200);
    assert!(rows.iter().all(|row| row.exit_code == 0));
    assert!(ran.err.starts_with("ratelimit: 200 tasks: 200 ok, 0 failed in"), "{}", ran.err);
}

#[test]
fn our_limit_on_descriptors_is_raised_where_it_has_to_be_and_the_commands_have_the_old_one() {
    let folder = Folder::new();
    for at_once in [1, 2, 400] {
        let script = format!(
            "ulimit -Sn 300; ulimit -Hn 1000; echo x | \"$R\" run 1/1s -q -j{at_once} -- \
            sh -c 'ulimit -Sn; ulimit -Hn; grep Max.open /proc/$PPID/limits' x"
        );
        let ran = folder.sh(&script);
        let lines: Vec<_> = ran.out.lines().collect();
        assert_eq!(lines[..2], ["300", "1000"], "-j{at_once}");
        let ours = lines[2].split_whitespace().nth(3);
        assert_eq!(ours, Some(if at_once == 400 { "1000" } else { "300" }), "-j{at_once}");
    }
}

#[test]
fn a_start_that_waits_for_long_is_told_of_and_can_be_interrupted() {
    // With too few descriptors the run is one error; with a few more it finds none left for a command,
    // whatever ends; with enough it runs.
    let mut waited = 0;
    for descriptors in 6..24 {
        let folder = Folder::new();
        folder.write("items", "x\n");
        let script = format!(
            "ulimit -n {descriptors}; exec \"$R\" run 1/1s -j2 --log log.csv -i items -- echo"
        );
        let mut child = folder.script(&script).spawn().unwrap();
        let mut told = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut told).unwrap();
        if !told.contains("cannot start a command now: Too many open files") {
            let ran = end(child);
            let expected = if told.contains("1 ok") { 0 } else { 3 };
            assert!(
                ran.code == Some(expected) || !folder.path("log.csv").exists(),
                "{told}{}",
                ran.err
            );
            continue;
        }
        waited += 1;
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let ran = end(child);
        assert_eq!(ran.code, Some(130), "{}", ran.err);
        assert!(ran.err.contains("0 ok, 0 failed, 1 never started in"), "{}", ran.err);
        assert_eq!(folder.log("log.csv"), [], "it is not used up");
    }
    assert!(waited > 0);
}

#[test]
fn what_is_there_and_may_not_be_run_is_no_missing_command() {
    let folder = Folder::new();
    folder.write("plain", "");
    for (command, words) in [
        ("./plain", "cannot run `./plain`: permission denied: it is no executable"),
        ("/", "cannot run `/`: it is a folder"),
    ] {
        let ran = folder.run("a\n", &[FREE, "--log", "log.csv", "--", command]);
        assert_eq!(ran.code, Some(126), "{}", ran.err);
        assert!(ran.err.contains(words), "{}", ran.err);
        assert!(!folder.path("log.csv").exists());
    }
    let ran = folder.sh("echo a | PATH=$PWD:$PATH \"$R\" run 1/1s -- plain");
    assert_eq!(ran.code, Some(126), "{}", ran.err);
}

#[test]
fn a_script_that_names_no_interpreter_is_run_by_sh() {
    let folder = Folder::new();
    executable(&folder, "script", "echo \"$0: $*\"\n");
    executable(&folder, "binary", "\x7fELF\0\0nothing\n");
    executable(&folder, "lost", "#!/no/such/interpreter\n");
    for at_once in ["-j1", "-j2", "-j400"] {
        let ran = folder.run("a b\n", &[FREE, "-q", at_once, "--", "./script", "x", "{}"]);
        assert_eq!((ran.out.as_str(), ran.code), ("./script: x a b\n", Some(0)), "{}", ran.err);
    }
    let ran = folder.sh("echo a | PATH=$PWD:$PATH \"$R\" run 1/1s -q -- script x");
    assert!(ran.out.ends_with("/script: x a\n"), "{} {}", ran.out, ran.err);
    let ran = folder.run("a\n", &[FREE, "-q", "--", "./binary"]);
    assert!(ran.err.contains("cannot run `./binary`: Exec format error"), "{}", ran.err);
    let ran = folder.run("a\n", &[FREE, "-q", "--log", "log.csv", "--", "./lost"]);
    assert!(ran.err.contains("it is there, but not the interpreter that it names"), "{}", ran.err);
    assert_eq!(folder.log("log.csv")[0].exit_code, 127);
}

#[test]
fn a_timeout_of_nothing_is_refused() {
    let ran = Folder::new().run("a\n", &[FREE, "--timeout", "0s", "--", "true"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("leave --timeout out for none"), "{}", ran.err);
}
