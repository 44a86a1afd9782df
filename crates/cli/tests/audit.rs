//! `ratelimit audit`, the real binary.

mod support;

use std::fmt::Write;

use support::{Folder, Ran, end};

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

#[test]
fn what_cannot_be_read_or_written_is_said() {
    let folder = Folder::new();
    folder.write("log", log(&[0])).write("empty", "").write("header", log(&[]));
    folder.write("other", "a,b\n1,2\n").write("torn", log(&[0]) + "1,17");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["log"], 2, "<LIMIT>"),
        (&["nowhere", "1/1s"], 3, "cannot read nowhere: "),
        (&["empty", "1/1s"], 3, "cannot read the log empty: it is empty"),
        (&["header", "1/1s"], 3, "cannot read the log header: no task is in it"),
        (&["other", "1/1s"], 3, "say with --start which column holds the times; there are a, b"),
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
