//! What is run is what was meant: placeholders, braces, quotes. The real binary.
//!
//! Time is real here: processes are. No assertion depends on how fast they are.

use crate::support::{FREE, Folder, Ran};

/// Runs `echo` with these arguments for some items.
fn echo(input: &str, options: &[&str], arguments: &[&str]) -> Ran {
    let all = [&[FREE], options, &["--", "echo"], arguments].concat();
    Folder::new().run(input, &all)
}

/// Runs a command that is refused, so that nothing runs, and says why.
fn refused(input: &str, arguments: &[&str]) -> String {
    let Ran { out, err, code } = Folder::new().run(input, arguments);
    assert_eq!((out.as_str(), code), ("", Some(2)), "{arguments:?}: {err}");
    assert_eq!(err.lines().count(), 1, "one error, not one for each item: {err}");
    err
}

#[test]
fn placeholders_stand_for_the_item_and_its_number_else_it_is_appended() {
    let cases: [(&[&str], &str); 4] = [
        (&["<{}>", "{}-{#}"], "<a b> a b-1\n<c> c-2\n"),
        (&["item"], "item a b\nitem c\n"),
        (&["{#}:"], "1: a b\n2: c\n"),
        (&["{.}"], "a b\nc\n"),
    ];
    for (command, out) in cases {
        assert_eq!(echo("a b\nc", &[], command).out, out, "{command:?}");
    }
    assert_eq!(echo("a\n", &["-I", "@"], &["{}", "@@"]).out, "{} aa\n");
    assert_eq!(echo("a\n", &["-I", "{x}"], &["{x}", "{#}"]).out, "a 1\n");
    assert_eq!(echo("a\n", &["-I", "NAME"], &["{NAME}", "{\"q\":NAME}"]).out, "{a} {\"q\":a}\n");
}

#[test]
fn parts_of_a_path_are_as_gnu_parallel_has_them() {
    // What `parallel -0 -k printf '[%s][%s][%s][%s]\n' {.} {/} {//} {/.}` (20221122) makes of these.
    let cases = [
        ("a.txt", "[a][a.txt][.][a]"),
        ("sub.dir/b", "[sub.dir/b][b][sub.dir][b]"),
        (".bashrc", "[][.bashrc][.][]"),
        ("d/.x", "[d/][.x][d][]"),
        ("a.", "[a][a.][.][a]"),
        ("a.b.c", "[a.b][a.b.c][.][a.b]"),
        ("a/b/", "[a/b/][][a][]"),
        ("/", "[/][][/][]"),
        ("//", "[//][][/][]"),
        ("/a", "[/a][a][/][a]"),
        ("", "[][][.][]"),
        ("a//b.c", "[a//b][b.c][a][b]"),
        ("..", "[.][..][.][.]"),
        ("a/..", "[a/.][..][a][.]"),
        ("a.b/", "[a.b/][][.][]"),
        ("two words/x y.tar.gz", "[two words/x y.tar][x y.tar.gz][two words][x y.tar]"),
    ];
    for (item, out) in cases {
        let parts = ["[{.}][{/}][{//}][{/.}]"];
        assert_eq!(echo(&format!("{item}\0"), &["-0"], &parts).out, format!("{out}\n"), "{item}");
    }
    let ran = echo("a.x\td/b.y\n", &["--tsv"], &["<{.}>", "{/}", "{1.}", "{2/}", "{2//}", "{2/.}"]);
    assert_eq!(ran.out, "<a d/b> a.x b.y a b.y d b\n", "of a record, that of each field");
    let ran = echo("f\nd/e.f\n", &["--csv"], &["{f.}", "{f/}", "{f//}", "{f/.}"]);
    assert_eq!(ran.out, "d/e e.f d e\n");
    let ran = echo("a b.x\tc d.y\n", &["--tsv", "--shell"], &["{.}"]);
    assert_eq!(ran.out, "a b c d\n");
}

#[test]
fn what_could_be_meant_as_a_placeholder_and_is_none_is_refused_with_what_there_is() {
    let written = [
        "{name}",
        "{1}",
        "{name}.png",
        "x{a_b-c}",
        "{größe}",
        "{1.}",
        "{name/}",
        "{%}",
        "{##}",
        "{..}",
        "a{3}",
    ];
    for written in written {
        let err = refused("a\nb\n", &[FREE, "--", "echo", written, "{}"]);
        assert!(err.contains("stands for nothing. There are {} (the item), {.}"), "{err}");
        assert!(err.contains("{{") && err.contains("--csv"), "the ways out: {err}");
    }
    let err = refused("url,n\nx,1\ny,2\n", &[FREE, "--csv", "--", "echo", "{nope}", "{url}"]);
    let words = "`{nope}` in the command stands for nothing. There are the columns {url} and {n}";
    assert!(err.contains(words), "{err}");
    let err = refused("1,2\n3,4\n", &[FREE, "--csv", "--", "echo", "{3}"]);
    assert!(err.contains("there is no column {3}; there are {1} and {2}"), "{err}");
    let err = refused("a\n", &[FREE, "--dry-run", "--", "echo", "{name}"]);
    assert!(err.contains("`{name}`"), "a dry run is no way to find out otherwise: {err}");
    let err = refused("p,w\na,1\nb,1\n", &["9w/1s", "--weight", "nope", "--", "echo"]);
    assert!(err.contains("--weight: there is no column {nope}; there are {p} and {w}"), "{err}");
    let err = refused("p,p\na,1\n", &[FREE, "--csv", "--", "echo", "{p}"]);
    assert!(err.contains("names more than one column: say {1} or {2}"), "{err}");
}

#[test]
fn json_awk_and_the_braces_of_other_programs_are_passed_on_as_they_are() {
    let plain = [
        r#"{"q":"x"}"#,
        r#"{"id":1,"q":{"a":{"b":[{"c":2}]}}}"#,
        r#"{"a":{"b":{"c":{}}}}"#,
        "{print $1}",
        "END{print NR; if (x) {y = 1}}",
        "${HOME}/${x:-none}",
        "{a,b}{1..3}",
        "{ echo; }",
        "%{http_code} %{time_total}\\n",
    ];
    for text in plain {
        for (options, input) in [(&["-I@"][..], "i\n"), (&["-I@", "--csv"], "i\n")] {
            if options.len() == 2 && text.starts_with('%') {
                continue; // With columns it may be one.
            }
            let ran = echo(input, options, &[text, "@"]);
            assert_eq!(ran.out, format!("{text} i\n"), "{}", ran.err);
        }
    }
    let ran = echo("7\n", &[], &[r#"{"id":{},"q":{"a":[]}}"#]);
    assert_eq!(ran.out, "{\"id\":7,\"q\":{\"a\":[]}}\n");
    let json = [r#"{"url":"{url}","n":{n},"more":{"deep":{}}}"#];
    let ran = echo("url,n\nu,1\n", &["--csv", "-I@"], &json);
    assert_eq!(ran.out, "{\"url\":\"u\",\"n\":1,\"more\":{\"deep\":{}}}\n");
    let ran = echo("url\nhttp://x\n", &["--csv"], &["-d", r#"{"q":"x"}"#, "{url}"]);
    assert_eq!(ran.out, "-d {\"q\":\"x\"} http://x\n");
}

#[test]
fn doubled_braces_are_braces() {
    let cases: [(&[&str], &str); 7] = [
        (&["{{}}"], "{} i"),
        (&["{{name}}", "{{1}}", "{{.}}"], "{name} {1} {.} i"),
        (&["{{{}}}"], "{i}"),
        (&[r#"{{"a":{{"b":{}}}}}"#], r#"{"a":{"b":i}}"#),
        (&[r#"{{"a":{"b":{}}}}"#], r#"{"a":{"b":i}}"#),
        (&["{{", "}}", "%{{http_code}}"], "{ } %{http_code} i"),
        (&["{{{{.Name}}}}", "{{{{end}}}}"], "{{.Name}} {{end}} i"),
    ];
    for (arguments, out) in cases {
        let ran = echo("i\n", &[], arguments);
        assert_eq!(ran.out, format!("{out}\n"), "{arguments:?}: {}", ran.err);
    }
    for template in ["{{.Name}}", "{{json .}}", "{{ .State.Status }}", "{{range .Items}}x"] {
        let err = refused("i\n", &[FREE, "--", "docker", "inspect", "-f", template]);
        assert!(err.contains("`{{` stands for one brace"), "{err}");
    }
}

#[test]
fn a_column_is_reached_by_any_name_it_has() {
    let input = "first name,2024,a.b,\"q\",größe\nAda,7,x.y,z,3\n";
    let arguments = ["{first name}", "{2024}", "{a.b}", "{a.b.}", "{q}", "{größe}"];
    assert_eq!(echo(input, &["--csv"], &arguments).out, "Ada 7 x.y x z 3\n");
    // A name that could as well be text makes the first record a header only if it is in it.
    assert_eq!(echo("first name\nAda\n", &["--csv"], &["{first name}"]).out, "Ada\n");
    let out = "{print $1} a\n{print $1} b\n";
    assert_eq!(echo("a\nb\n", &["--csv"], &["{print $1}"]).out, out);
    assert_eq!(echo("a\nb\n", &["--tsv", "--header"], &["{print $1}"]).out, "{print $1} b\n");
    for almost in ["{first nmae}", "{First Name}", "{FirstName.}", "{first_name}"] {
        let err = refused("first name\nAda\n", &[FREE, "--csv", "--", "echo", almost]);
        assert!(err.contains("first name}"), "{err}");
    }
}

#[test]
fn a_variable_of_the_shells_that_is_a_column_too_is_refused() {
    let err = refused("x\n1\n", &[FREE, "--csv", "--header", "--", "sh", "-c", "echo ${x}"]);
    assert!(err.contains("double the braces: ${{x}}"), "{err}");
    refused("1\n", &[FREE, "--csv", "--", "sh", "-c", "echo ${1}", "_"]);
    let ran = Folder::new().run(
        "x\n1\n",
        &[
            FREE,
            "--csv",
            "--header",
            "--",
            "sh",
            "-c",
            "x=2; echo ${{x}} ${HOME:+h} $1",
            "_",
            "{x}",
        ],
    );
    assert_eq!(ran.out, "2 h 1\n", "{}", ran.err);
}

#[test]
fn without_columns_nothing_makes_the_first_line_a_header() {
    let folder = Folder::new();
    folder.write("x.csv", "name,age\nbob,3\n");
    let ran = folder.run("", &[FREE, "-i", "x.csv", "--", "echo", "{}"]);
    assert_eq!(ran.out, "name,age\nbob,3\n");
    let err = refused("name,age\nbob,3\n", &[FREE, "--", "echo", "{name}"]);
    assert!(err.contains("columns need --csv or --tsv"), "{err}");
}

#[test]
fn no_shell_is_in_between_unless_asked_for_and_then_items_are_quoted() {
    let folder = Folder::new();
    let nasty = "$(touch owned); 'x' \"y\" * ~ `id` \\\n";
    let ran = folder.run(nasty, &[FREE, "--", "echo", "{}"]);
    assert_eq!(ran.out, nasty);
    for command in [
        "printf '%s\\n' {} | cat; echo done",
        "printf '%s\\n' \"$(printf %s {})\"; echo done",
        "printf '%s\\n' \"\"{}''; echo done # no {{}} here",
        "x={}; printf '%s\\n' \"$x\"; echo done",
        "printf '%s\\n' ${unset:-{}}; echo done",
        "(printf '%s\\n' {}); { echo done; }",
        "cat <<END >&2; printf '%s\\n' {}; echo done\ntext\nEND",
        "case x in (x) printf '%s\\n' {};; esac; echo done",
    ] {
        let ran = folder.run(nasty, &[FREE, "--shell", "-q", "--", command]);
        assert_eq!(ran.out, format!("{nasty}done\n"), "{command}: {}", ran.err);
    }
    let ran = folder.run("a b\n", &[FREE, "--shell", "--", "printf '%s\\n'"]);
    assert_eq!(ran.out, "a b\n", "appended");
    assert!(!folder.path("owned").exists());
}

#[test]
fn a_placeholder_that_the_shell_does_not_read_as_a_word_is_refused() {
    let cases = [
        ("echo '{}'", "inside of single quotes"),
        ("echo 'before {} after'", "inside of single quotes"),
        ("echo \"{}\"", "inside of double quotes"),
        ("echo \"a $(date) {}\"", "inside of double quotes"),
        ("echo \"${x:-{}}\"", "inside of double quotes"),
        ("echo \"$(echo '{}')\"", "inside of single quotes"),
        ("echo $(echo \"{}\")", "inside of double quotes"),
        ("echo `cat {}`", "inside of backticks"),
        ("echo \"`cat {}`\"", "inside of backticks"),
        ("cat <<END\n{}\nEND\n", "in a here-document"),
        ("cat <<'END'; x\n{}\nEND\n", "in a here-document"),
        ("cat <<-END\n\t{}\n\tEND\n", "in a here-document"),
        ("echo $(({} + 1))", "in arithmetic"),
        ("true # {}", "in a comment"),
        ("echo \\{}", "right after a backslash"),
        ("echo ${}", "right after a dollar sign"),
        ("echo it\\'s '{}'", "inside of single quotes"),
        ("echo 'it'\\''s {}'", "inside of single quotes"),
        ("echo $'\\'' {}'", "inside of single quotes"),
        ("echo \"$(case x in x) echo;; esac) {}\"", "inside of double quotes"),
        ("echo \"$(echo case) {}\"", "inside of double quotes"),
        ("echo '{.}'", "inside of single quotes"),
        ("echo {} '{}'", "inside of single quotes"),
    ];
    for (command, place) in cases {
        let err = refused("x\n", &[FREE, "--shell", "--", command]);
        assert!(err.contains(place) && err.contains("leave the quotes away"), "{command}: {err}");
    }
    let err = refused("a\nx\n", &[FREE, "--csv", "--shell", "--", "echo '{a}'"]);
    assert!(err.contains("inside of single quotes"), "{err}");
    let ran =
        Folder::new().run("x\n", &[FREE, "--shell", "--", "echo 'no {{}} {#}' \"$((1))\" {}"]);
    assert_eq!(ran.out, "no {} 1 1 x\n", "a number and braces may stand anywhere: {}", ran.err);
}

#[test]
fn a_command_without_the_dashes_before_it_is_told_so() {
    for arguments in [&["1/1s", "echo"][..], &["1/1s", "curl", "-sS", "{}"], &["1/1s", "./x", "{}"]]
    {
        let ran = Folder::new().run("a\n", arguments);
        assert_eq!(ran.code, Some(2));
        let words = "put -- before the command: ratelimit run 10/1s -- curl -sS {}";
        assert!(ran.err.contains(words), "{}", ran.err);
    }
    let ran = Folder::new().run("a\n", &["10/1x", "--", "echo"]);
    assert!(!ran.err.contains("put --"), "{}", ran.err);
}
