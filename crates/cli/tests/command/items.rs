//! What is an item: lines, records over several lines, weights, line ends of other systems. The real binary.
//!
//! Time is real here: processes are. No assertion depends on how fast they are; what waits, waits
//! for something that the run does.

use std::fs;
use std::io::Write;

use crate::support::{FREE, Folder, Ran, assert_clean};

#[test]
fn items_may_end_with_nul_and_come_from_a_file() {
    let folder = Folder::new();
    folder.write("items", "two\nlines\0\0last");
    let ran = folder.run("", &[FREE, "-0", "-i", "items", "--", "printf", "<%s>"]);
    assert_eq!(ran.out, "<two\nlines><><last>");
    let ran = folder.run("from stdin\n", &[FREE, "-i", "-", "--", "echo"]);
    assert_eq!(ran.out, "from stdin\n");
}

#[test]
fn items_that_are_not_utf8_are_passed_on_and_logged_as_they_are() {
    let folder = Folder::new();
    folder.run(b"\xff\xfe\n", &[FREE, "--log", "log.csv", "--shell", "--", "printf %s {} > out"]);
    assert_eq!(fs::read(folder.path("out")).unwrap(), b"\xff\xfe");
    assert!(fs::read(folder.path("log.csv")).unwrap().ends_with(b"\xff\xfe\n"));
}

#[test]
fn a_record_over_several_lines_is_one_item() {
    let folder = Folder::new();
    folder.write("three.csv", "id,prompt\n1,\"Summarise:\nDROP everything\nThanks\"\n2,plain\n");
    let run = |options: &[&str], command: &[&str]| {
        let input = [FREE, "-i", "three.csv", "--csv", "-q"];
        folder.run("", &[&input, options, &["--"], command].concat())
    };
    assert_eq!(run(&["--header"], &["printf", "RUN[%s]", "{1}"]).out, "RUN[1]RUN[2]");
    let ran = run(&["--log", "log.csv"], &["printf", "[%s|%s]", "{id}", "{prompt}"]);
    assert_eq!(ran.out, "[1|Summarise:\nDROP everything\nThanks][2|plain]");
    let inputs: Vec<_> = folder.log("log.csv").into_iter().map(|row| row.input).collect();
    assert_eq!(inputs, ["1,\"Summarise:\nDROP everything\nThanks\"", "2,plain"]);
    let ran = run(&["--log", "log.csv", "--resume"], &["echo", "{id}"]);
    assert_eq!((ran.out.as_str(), ran.code), ("", Some(0)), "it is known again: {}", ran.err);
    let ran = run(&["--dry-run", "--shell"], &["echo", "{prompt}"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

#[test]
fn a_quote_that_is_never_closed_runs_nothing_of_its_record_and_is_named_by_its_line() {
    let input = "1,a\n2,b\n3,\"open\nrm -rf\n\nmore\n";
    let ran = Folder::new().run(input, &[FREE, "--csv", "--", "echo", "{1}"]);
    assert_eq!((ran.out.as_str(), ran.code), ("1\n2\n", Some(1)));
    assert!(ran.err.contains("line 3: the quote that opens in this record is not"), "{}", ran.err);
    assert!(ran.err.contains("2 tasks: 2 ok, 0 failed, 1 not run"), "{}", ran.err);
    let ran = Folder::new().run("\"id,x\n1,2\n", &[FREE, "--csv", "--", "echo", "{id}"]);
    assert_eq!((ran.out.as_str(), ran.code), ("", Some(3)), "a header that has no end");
    assert!(ran.err.contains("line 1, which names the columns"), "{}", ran.err);
}

#[test]
fn items_are_run_as_soon_as_they_are_whole_and_not_before() {
    let folder = Folder::new();
    let options = [FREE, "--csv", "--", "sh", "-c", ": > seen-$1", "_", "{1}"];
    let mut child = folder.command(&options).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for (text, seen) in [("a,\"x\r\n\n", None), ("y\"\r\n", Some("a")), ("b\n\"c\n", Some("b"))] {
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
        if let Some(seen) = seen {
            folder.wait_until(|folder| folder.path(&format!("seen-{seen}")).exists());
        }
    }
    assert!(!folder.path("seen-c").exists() && !folder.path("seen-y").exists());
    input.write_all(b"d\"\n").unwrap();
    drop(input);
    assert_eq!(crate::support::end(child).code, Some(0));
    assert!(folder.path("seen-c\nd").exists());
}

#[test]
fn line_ends_of_windows_are_taken_off_records_and_told_of_in_lines() {
    let run = |input: &str, options: &[&str], shown: &str| {
        let all = [&[FREE], options, &["--", "printf", "<%s>", shown]].concat();
        Folder::new().run(input, &all)
    };
    let ran = run("id,prompt\r\n\r\n1,a\r\n\r\n2,b", &["--csv"], "{prompt}");
    assert_eq!((ran.out.as_str(), ran.code), ("<a><b>", Some(0)), "{}", ran.err);
    assert_eq!(run("1\ta\r\n\r\n", &["--tsv"], "{2}").out, "<a>");
    let ran = run("a\nb\r\n\r\nc\r\n", &[], "{}");
    assert_eq!((ran.out.as_str(), ran.code), ("<a><b\r><\r><c\r>", Some(0)));
    assert_eq!(ran.err.matches("carriage return").count(), 1, "told once: {}", ran.err);
    assert!(ran.err.contains("line 2 ") && ran.err.contains("--crlf"), "{}", ran.err);
    let ran = run("a\r\n\r\nb\r\r\nc", &["--crlf"], "{}");
    assert_eq!(ran.out, "<a><b\r><c>");
    let ran = run("a,b\rc,d\r", &["--csv"], "{}");
    assert_eq!((ran.out.as_str(), ran.code), ("", Some(1)), "{}", ran.err);
    assert!(ran.err.contains("line 1: a carriage return in the middle of a line"), "{}", ran.err);
    assert_eq!(run("a\0", &["-0", "--crlf"], "{}").code, Some(2));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_item() {
    for options in [&[][..], &["--csv"], &["--tsv"]] {
        let all = [&[FREE], options, &["--", "printf", "<%s>", "{}"]].concat();
        assert_eq!(Folder::new().run("\u{feff}a\nb\n", &all).out, "<a><b>", "{options:?}");
    }
}

#[test]
fn the_items_of_a_message_are_one_short_line_however_long_they_are() {
    let folder = Folder::new();
    let item = "x".repeat(1_000_000);
    let ran =
        folder.run(format!("{item}\0a\nb\0"), &[FREE, "-0", "--shell", "--", ": {}; kill $$"]);
    assert!(ran.err.len() < 2_000, "{}", ran.err.len());
    assert!(ran.err.contains("`a\\nb`"), "{}", ran.err);
    let weights = format!("{item}\n1{item}\n");
    let ran = folder.run(weights, &["1w/1s", "--weight", "1", "--", "true"]);
    assert!(ran.err.len() < 2_000, "{}", ran.err.len());
}

// --- Columns and weights

#[test]
fn fields_stand_for_themselves_by_number_and_by_name() {
    let folder = Folder::new();
    let ran = folder.run("a,\"b, c\"\n", &[FREE, "--csv", "--", "echo", "{2}|{1}"]);
    assert_eq!(ran.out, "b, c|a\n");
    let ran = folder.run("x\ty\n1\t\"2\n", &[FREE, "--tsv", "--", "echo", "{y}{x}", "{}"]);
    assert_eq!(ran.out, "\"21 1\t\"2\n");
    let ran = folder.run("x\n1\n", &[FREE, "--csv", "--header", "--", "echo", "{1}"]);
    assert_eq!(ran.out, "1\n");
}

#[test]
fn weights_come_from_a_column_and_all_limits_hold() {
    let folder = Folder::new();
    let lines = (0..40).map(|item| format!("item {item},{}", 1 + item % 7));
    let input = lines.collect::<Vec<_>>().join("\n");
    let limits = ["25w/100ms", "9/100ms"];
    let options = ["-j3", "--log", "log.csv", "--weight", "tokens", "--", "true"];
    let ran = folder.run(format!("name,tokens\n{input}"), &[&limits[..], &options[..]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let rows = folder.log("log.csv");
    assert_eq!(rows.iter().map(|row| row.record.weight).sum::<u64>(), 155);
    assert_clean(&rows, &limits);

    folder.write("items.tsv", "a\t3\n");
    folder
        .run("", &["5w/1s", "-i", "items.tsv", "--weight", "2", "--log", "tsv.csv", "--", "true"]);
    assert_eq!(folder.log("tsv.csv")[0].record.weight, 3);
}

#[test]
fn a_malformed_line_is_named_and_the_others_are_run() {
    let input = "a,1\nb,many\nc\nd,0\ne,11\ng,2\nh,\ni,1.5\n\"f,1\n";
    let options = ["10w/1s", "--weight", "2", "--", "echo", "{1}"];
    let Ran { out, err, code } = Folder::new().run(input, &options);
    assert_eq!((out.as_str(), code), ("a\ng\n", Some(1)));
    for line in [
        "line 2: the weight `many` in column 2 cannot be taken: it is not a number",
        "line 3: it has 1 fields, none in column 2",
        "line 4, `d,0`: weight 0 takes nothing from any limit; the least is 1",
        "line 5, `e,11`: weight 11 is over the limit 10w/1s: it could never run",
        "line 7: the weight `` in column 2 cannot be taken: it is empty",
        "line 8: the weight `1.5` in column 2 cannot be taken: it is not a whole number",
        "line 9: the quote that opens in this record is not closed",
        "2 tasks: 2 ok, 0 failed, 7 not run in",
    ] {
        assert!(err.contains(line), "{line}\n{err}");
    }
}

#[test]
fn weights_are_read_as_spreadsheets_and_programs_write_them() {
    let folder = Folder::new();
    let input = "p,w\na,5.0\nb,1e3\nc,\"1,000\"\nd, 7 \ne,1_000\n";
    let options = ["10000w/1s", "--weight", "w", "--log", "log.csv", "--", "true"];
    assert_eq!(folder.run(input, &options).code, Some(0));
    let weights: Vec<_> = folder.log("log.csv").iter().map(|row| row.record.weight).collect();
    assert_eq!(weights, [5, 1_000, 1_000, 7, 1_000]);
}

#[test]
fn a_limit_on_weight_needs_weights_and_weights_need_it() {
    let folder = Folder::new();
    let ran = folder.run("a\n", &["90000w/1m", "10/1s", "--", "echo"]);
    assert_eq!((ran.out.as_str(), ran.code), ("", Some(2)));
    assert!(ran.err.contains("--weight COLUMN"), "{}", ran.err);
    assert!(ran.err.contains("the limit is 90000/"), "the way out: {}", ran.err);
    let ran = folder.run("a\n", &["90000w/1m", "--csv", "--dry-run", "--", "echo"]);
    assert_eq!(ran.code, Some(2));
    let ran = folder.run("a,1\n", &["9/1m", "--weight", "2", "--", "echo"]);
    assert_eq!(ran.code, Some(2));
}

#[test]
fn a_line_that_cannot_be_run_halts_as_a_failure_does() {
    let folder = Folder::new();
    let options = ["9w/1s", "--weight", "2", "--halt", "--", "echo", "{1}"];
    let ran = folder.run("a,1\nb,many\nc,1\nd,1\n", &options);
    assert_eq!((ran.out.as_str(), ran.code), ("a\n", Some(1)), "{}", ran.err);
}

#[test]
fn a_retry_weighs_what_the_item_does() {
    let folder = Folder::new();
    let limits = ["8w/150ms", "100/150ms"];
    let options = ["--weight", "1", "--retries", "3", "--retry-delay", "1ms", "--log", "log.csv"];
    folder.run("8\n7\n", &[&limits[..], &options[..], &["--", "false"]].concat());
    let rows = folder.log("log.csv");
    assert_eq!(rows.len(), 8);
    assert_clean(&rows, &limits);
}
