//! `ratelimit audit`, the real binary.

use std::fmt::Write;

use crate::support::{Folder, Ran, end};

fn audit(folder: &Folder, arguments: &[&str]) -> Ran {
    end(folder.subcommand("audit", arguments).spawn().unwrap())
}

/// Tasks of 1 ms that start at these milliseconds.
fn log(starts_ms: &[u64]) -> String {
    let mut log = String::from("seq,start_ns,end_ns,weight,exit_code,input\n");
    for (seq, start) in starts_ms.iter().enumerate() {
        let start = 1_785_000_000_000_000_000 + start * 1_000_000;
        writeln!(log, "{seq},{start},{},1,0,item", start + 1_000_000).unwrap();
    }
    log
}

#[test]
fn the_verdict_names_the_fullest_window_and_the_exit_code_says_it() {
    let folder = Folder::new();
    folder.write("log", log(&[0, 40, 90, 200, 300, 301]));
    let ran = audit(&folder, &["log", "2/50ms", "3/1s"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let expected = "\
6 tasks in 302.000ms, from 2026-07-25T17:20:00.000000Z
2/50ms: kept
  fullest window  2 of 2
  where           2026-07-25T17:19:59.990000Z to 2026-07-25T17:20:00.040000Z
  by their starts 2, by their ends 2
  utilisation     0.427
3/1s: BROKEN
  fullest window  6 of 3
  where           2026-07-25T17:19:59.301000Z to 2026-07-25T17:20:00.301000Z
  by their starts 6, by their ends 6
  utilisation     1.537
waits: 4, 296.000ms in all; median 49.000ms, longest 109.000ms from 2026-07-25T17:20:00.091000Z
";
    assert_eq!(ran.out, expected);
    let ran = audit(&folder, &["log", "2/50ms", "-q"]);
    assert_eq!((ran.code, ran.out, ran.err), (Some(0), String::new(), String::new()));
}

#[test]
fn a_run_of_its_own_is_clean_and_so_is_its_log_from_standard_input() {
    let folder = Folder::new();
    let input: String = (1..=30).map(|item| item.to_string() + "\n").collect();
    folder.run(&input, &["10/50ms", "-j3", "--log", "log.csv", "--", "true"]);
    assert_eq!(audit(&folder, &["log.csv", "10/50ms"]).code, Some(0));
    let mut child = folder.subcommand("audit", &["-", "9/50ms"]).spawn().unwrap();
    let log = folder.read("log.csv");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), log.as_bytes()).unwrap();
    let ran = end(child);
    assert!(ran.out.starts_with("30 tasks in "), "{}", ran.out);
}

#[test]
fn the_chart_and_the_page_say_it_as_well_and_escape_what_they_are_given() {
    let folder = Folder::new();
    folder.write("<b>.csv", log(&[0, 10, 20, 300]));
    let arguments = ["<b>.csv", "2/50ms", "100/1s", "--chart", "out.svg", "--html", "out.html"];
    assert_eq!(audit(&folder, &arguments).code, Some(1));
    let (svg, html) = (folder.read("out.svg"), folder.read("out.html"));
    assert!(svg.starts_with("<svg") && svg.contains("2/50ms: broken, fullest window 3"), "{svg}");
    assert!(svg.contains("100/1s: kept, fullest window 4") && !svg.contains("<b>"));
    assert!(
        html.contains("<td>2/50ms</td><td class=\"broken\">broken</td><td>3 of 2</td>"),
        "{html}"
    );
    assert!(html.contains("Audit of &#60;b&#62;.csv") && !html.contains("<b>"), "{html}");
    // The fullest windows have no instant in common.
    let worst = "<td>2026-07-25T17:19:59.970000Z</td><td class=\"number\">3</td>";
    let next = "<td>2026-07-25T17:20:00.250000Z</td><td class=\"number\">1</td>";
    assert!(html.contains(worst) && html.contains(next), "{html}");
    assert!(html.contains(&svg), "the page has the chart in it");
}

/// Audits this log, under this name, as lines of JSON or columns.
fn audit_of(log: &str, arguments: &[&str]) -> Ran {
    let folder = Folder::new();
    folder.write("log", log);
    audit(&folder, &[&["log"], arguments].concat())
}

const NGINX: &str = "\
{\"time\":\"1700000010.000\",\"request_time\":\"0.000\"}
{\"time\":\"1700000011.500\",\"request_time\":\"1.000\"}
";

#[test]
fn times_that_are_when_a_task_ended_are_taken_for_that() {
    // The second began at 10.5, half a second after the first.
    let ran = audit_of(NGINX, &["1/1s", "--end", "time", "--duration", "request_time"]);
    assert!(ran.code == Some(1) && ran.out.contains("1/1s: BROKEN"), "{ran:?}");
    let far = audit_of(NGINX, &["1/400ms", "--end", "time", "--duration", "request_time"]);
    assert!(far.code == Some(0) && far.out.contains("1/400ms: kept"), "{far:?}");
    let cases: [&[&str]; 3] = [
        &["--start", "time", "--end", "time", "--duration", "request_time"],
        &["--end", "time"],
        &["--duration", "request_time"],
    ];
    for told in cases {
        let ran = audit_of(NGINX, &[&["1/1s"], told].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{told:?}");
        assert!(ran.err.contains("--start") && ran.err.contains("--duration"), "{}", ran.err);
    }
}

#[test]
fn a_time_that_seems_to_be_the_other_end_is_never_called_kept() {
    let as_start = ["1/1s", "--start", "time", "--duration", "request_time"];
    let ran = audit_of(NGINX, &as_start);
    assert!(ran.code == Some(4) && ran.out.contains("1/1s: CANNOT BE TOLD"), "{ran:?}");
    assert!(ran.out.contains("then say --end time --duration request_time"), "{}", ran.out);
    let ran = audit_of(NGINX, &[&as_start[..], &["--as-told"]].concat());
    assert!(ran.code == Some(0) && ran.out.contains("1/1s: kept"), "{ran:?}");

    // Rows are written as tasks end: here in the order of their times, so those are the ends.
    let rows = "at,took\n1700000010.001,0.500\n1700000012.002,5.000\n1700000014.003,2.900\n";
    let ran = audit_of(rows, &["1/500ms", "--start", "at", "--duration", "took"]);
    assert!(ran.code == Some(1), "they overlap either way: {ran:?}");
    let ran = audit_of(rows, &["2/1400ms", "--start", "at", "--duration", "took"]);
    assert!(ran.code == Some(4), "only as starts they keep it: {ran:?}");
    assert!(ran.out.contains("the rows are in its order"), "{}", ran.out);
    // Where both say the same, it is enough to say so.
    let ran = audit_of(rows, &["3/1s", "--start", "at", "--duration", "took"]);
    assert!(ran.code == Some(0) && ran.err.contains("then say --end at"), "{ran:?}");
    // The other way round, in the order of start and duration together.
    let rows = "at,took\n1700000012.002,0.500\n1700000010.001,4.000\n";
    let ran = audit_of(rows, &["1/100ms", "--end", "at", "--duration", "took"]);
    assert!(ran.code == Some(4) && ran.out.contains("then say --start at"), "{ran:?}");
    // One after the other, nothing speaks for either.
    let rows = "at,took\n1700000010.001,0.500\n1700000012.002,0.500\n";
    let ran = audit_of(rows, &["1/1s", "--start", "at", "--duration", "took"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
}

#[test]
fn durations_are_in_the_unit_that_is_told() {
    // 2.5 ms each, 30 s apart.
    let log = "{\"StartUTC\":\"2026-01-01T10:00:00.1Z\",\"Duration\":2500000}\n\
               {\"StartUTC\":\"2026-01-01T10:00:30.1Z\",\"Duration\":2500000}\n";
    let told = ["1/1s", "--start", "StartUTC", "--duration", "Duration"];
    let ran = audit_of(log, &told);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("durations were taken for seconds"), "{}", ran.err);
    let ran = audit_of(log, &[&told[..], &["--duration-unit", "ns"]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);

    let bad = |row: &str, arguments: &[&str], words: &str| {
        let log = format!("at,took\n1700000000,1\n1700000100,{row}\n1700000200,1\n");
        let told = ["1/1s", "--start", "at", "--duration", "took"];
        let ran = audit_of(&log, &[&told[..], arguments].concat());
        assert!(ran.code == Some(3) && ran.err.contains(words), "{ran:?}");
    };
    bad("-0.5", &[], "line 3: took is negative: `-0.5`");
    bad("12ms", &["--duration-unit", "ms"], "line 3: took has a unit of its own");
    let ran = audit_of(log, &["1/1s", "--start", "StartUTC", "--duration-unit", "ns"]);
    assert_eq!(ran.code, Some(2));
}

#[test]
fn numbers_are_read_to_their_last_digit() {
    // As floating point numbers, both times would be the same, and a nanosecond decides.
    let log = |second: &str| {
        format!("{{\"ts\":1700000000.000000001,\"took\":9.5e-6}}\n{{\"ts\":{second},\"took\":0}}\n")
    };
    let verdict = |second: &str| {
        let told = ["1/1us", "--start", "ts", "--duration", "took", "--resolution", "1ns"];
        audit_of(&log(second), &told).code
    };
    assert_eq!(verdict("1700000000.000010501"), Some(1), "exactly the period after the end");
    assert_eq!(verdict("1.700000000000010502e9"), Some(0), "a nanosecond later");
}

#[test]
fn coarse_times_are_kept_broken_or_cannot_be_told() {
    let log = |each_second: usize| {
        let mut log = String::from("at\n");
        for second in 0..5 {
            log += &format!("2026-07-25T17:20:0{second}Z\n").repeat(each_second);
        }
        log
    };
    let at = |each_second, limit| audit_of(&log(each_second), &[limit, "--start", "at"]);
    let ran = at(10, "10/1s");
    assert!(ran.code == Some(4) && ran.out.contains("10/1s: CANNOT BE TOLD"), "{ran:?}");
    assert!(ran.out.contains("fullest window  between 10 and 20 of 10"), "{}", ran.out);
    assert!(ran.out.contains("(times exact to 1s)"), "{}", ran.out);
    let ran = at(5, "10/1s");
    assert!(ran.code == Some(0) && ran.out.contains("fullest window  at most 10 of 10"), "{ran:?}");
    let ran = at(11, "10/1s");
    assert!(ran.code == Some(1) && ran.out.contains("10/1s: BROKEN"), "{ran:?}");
    let ran = at(10, "10/1250ms");
    assert!(ran.code == Some(1), "there is no room for all of them: {ran:?}");
    // Of several limits, the worst verdict is the exit code.
    let ran = audit_of(&log(10), &["10/1s", "20/1s", "5/1s", "--start", "at", "-q"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let ran = audit_of(&log(10), &["20/1s", "10/1s", "--start", "at", "-q"]);
    assert_eq!(ran.code, Some(4));
}

#[test]
fn how_exact_times_are_can_be_told() {
    let log = "at\n1700000000\n1700000001\n1700000003\n";
    let verdict = |resolution: &str| {
        audit_of(log, &["1/900ms", "--start", "at", "--resolution", resolution]).code
    };
    assert_eq!(verdict("1ns"), Some(0), "they are exact");
    assert_eq!(verdict("1ms"), Some(0));
    assert_eq!(verdict("1s"), Some(4));
    assert_eq!(verdict("0s"), Some(2));
    let ran = audit_of(log, &["1/900ms", "--start", "at"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    // Milliseconds that are all whole seconds were read from no clock of milliseconds.
    let log = "at\n1700000000000\n1700000001000\n1700000003000\n";
    let ran = audit_of(log, &["1/900ms", "--start", "at"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
}

#[test]
fn a_log_of_our_own_is_exact_however_round_its_times_are() {
    let folder = Folder::new();
    folder.write("log", log(&[0, 2_000, 4_000]));
    let ran = audit(&folder, &["log", "1/1998999999ns"]);
    assert!(ran.code == Some(0) && !ran.out.contains("exact"), "{ran:?}");
    assert_eq!(audit(&folder, &["log", "1/1999ms"]).code, Some(1));
}

#[test]
fn an_end_that_is_coarser_than_its_start_is_no_error() {
    let log = "from,to\n2026-07-25T17:20:00.500Z,2026-07-25T17:20:00Z\n\
               2026-07-25T17:20:09.500Z,2026-07-25T17:20:09Z\n";
    let ran = audit_of(log, &["1/1s", "--start", "from", "--end", "to"]);
    assert!(
        ran.code == Some(0) && ran.out.contains("(starts exact to 1ms, ends exact to 1s)"),
        "{ran:?}"
    );
    let wrong = log.replace("09Z", "08Z");
    let ran = audit_of(&wrong, &["1/1s", "--start", "from", "--end", "to"]);
    assert!(ran.code == Some(3) && ran.err.contains("line 3: it ends before it starts"), "{ran:?}");
}

#[test]
fn a_picture_is_whole_whatever_the_name_of_the_log_is() {
    let folder = Folder::new();
    let name = format!("a\u{1}b\u{1b}[31m\n<&\"'>{}", "x".repeat(190));
    folder.write(&name, log(&[0]));
    let ran = audit(&folder, &[&name, "1/1s", "--chart", "svg", "--html", "html"]);
    assert!(ran.code == Some(0) && ran.out.starts_with("1 task in "), "{ran:?}");
    for file in ["svg", "html"] {
        let text = folder.read(file);
        let control = text.chars().find(|char| char.is_control() && *char != '\n');
        assert_eq!(control, None, "in the {file}");
    }
    let svg = folder.read("svg");
    let title = svg.lines().find(|line| line.contains(": 1 task from ")).unwrap();
    assert!(title.starts_with("…") && title.chars().count() < 120, "{title}");
    assert!(!folder.read("html").contains("1 tasks") && !svg.contains("1 tasks"));
}

#[test]
fn a_picture_can_go_to_standard_output() {
    let folder = Folder::new();
    folder.write("log", log(&[0, 1]));
    for (option, begin) in [("--chart", "<svg"), ("--html", "<!doctype html>")] {
        let ran = audit(&folder, &["log", "1/1s", option, "-"]);
        assert!(ran.code == Some(1) && ran.out.starts_with(begin), "{}", ran.err);
        assert!(!ran.out.contains("fullest window  2") && ran.err.contains("1/1s: BROKEN"));
        assert!(!folder.path("-").exists());
    }
    let ran = audit(&folder, &["log", "1/1s", "--chart", "-", "--html", "-"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
}

#[test]
fn what_cannot_be_read_or_written_is_said() {
    let folder = Folder::new();
    folder.write("log", log(&[0])).write("empty", "").write("header", log(&[]));
    folder.write("other", "a,b\n1,2\n").write("torn", log(&[0]) + "1,17");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["log"], 2, "<LIMIT>"),
        (&["nowhere", "1/1s"], 3, "cannot read nowhere: "),
        (&["empty", "1/1s"], 3, "cannot read the log empty: it is empty"),
        (&["header", "1/1s"], 3, "cannot read the log header: it has no tasks"),
        (
            &["other", "1/1s"],
            3,
            "say with --start (or --end and --duration) which column holds the times; there are a, b",
        ),
        (&["other", "1/1s", "--end", "b"], 2, "--start"),
        (&["log", "1/1s", "--chart", "no/such/folder"], 3, "cannot write no/such/folder: "),
    ];
    for (arguments, code, words) in cases {
        let ran = audit(&folder, arguments);
        assert!(ran.code == Some(code) && ran.err.contains(words), "{arguments:?}: {ran:?}");
    }
    let ran = audit(&folder, &["torn", "1/1s"]);
    assert!(ran.code == Some(0) && ran.out.contains("(the last line is not whole"), "{ran:?}");
}
