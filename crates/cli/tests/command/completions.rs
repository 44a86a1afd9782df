//! What is made of the argument definitions: completions and the manual.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn ratelimit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ratelimit")).args(arguments).output().unwrap()
}

/// Every long option that the help of `run` knows.
fn options() -> Vec<String> {
    let help = String::from_utf8(ratelimit(&["run", "--help"]).stdout).unwrap();
    let words =
        help.lines().filter_map(|line| line.trim_start().split("--").nth(1).zip(Some(line)));
    let listed = words.filter(|(_, line)| line.trim_start().starts_with('-'));
    let names = listed.map(|(rest, _)| rest.split([' ', ',', '\n']).next().unwrap_or_default());
    let names: Vec<String> = names.map(|name| format!("--{name}")).collect();
    assert!(names.len() > 15 && names.contains(&"--resume".to_owned()), "{names:?}");
    names
}

#[test]
fn every_shell_is_told_every_option() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let Output { stdout, status, .. } = ratelimit(&["completions", shell]);
        assert!(status.success());
        let script = String::from_utf8(stdout).unwrap();
        for option in options() {
            let bare = option.trim_start_matches('-');
            assert!(script.contains(bare), "{shell} is not told of {option}");
        }
    }
    assert_eq!(ratelimit(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn bash_reads_its_completions() {
    let script = ratelimit(&["completions", "bash"]).stdout;
    let bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut bash = bash.unwrap();
    bash.stdin.take().unwrap().write_all(&script).unwrap();
    let read = bash.wait_with_output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}

#[test]
fn the_manual_has_a_page_for_each_subcommand_and_every_option() {
    let folder = TempDir::new().unwrap();
    let pages = folder.path().join("man1");
    assert!(ratelimit(&["man", pages.to_str().unwrap()]).status.success());
    for page in [
        "ratelimit",
        "ratelimit-run",
        "ratelimit-pipe",
        "ratelimit-audit",
        "ratelimit-status",
        "ratelimit-set",
        "ratelimit-forget",
        "ratelimit-completions",
        "ratelimit-man",
    ] {
        let text = fs::read_to_string(pages.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}");
    }
    let run = fs::read_to_string(pages.join("ratelimit-run.1")).unwrap().replace('\\', "");
    for option in options() {
        assert!(run.contains(&option), "the manual does not know {option}");
    }
    assert!(run.contains("Exit codes:"), "what the help says at its end");
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let ran = ratelimit(&["man", file.join("man1").to_str().unwrap()]);
    assert_eq!(ran.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("file/man1"));
}
