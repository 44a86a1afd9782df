//! What the help says after the options: examples, what happens when, exit codes.

pub(crate) const AFTER_PIPE_HELP: &str = "\
Examples:
  Ten lines a second to whatever reads them:
    tail -f access.log | ratelimit pipe 10/1s | ./notify
  At most 500 messages and a million bytes a second:
    ratelimit pipe 500/1s 1000000w/1s --bytes -i messages.jsonl | nc localhost 9000

What reads the output may hand it on to others: what they do with it, and when, cannot be counted.

Exit codes: 0 all well, 2 usage, 3 input or output, 141 whoever reads the output has gone";

pub(crate) const AFTER_AUDIT_HELP: &str = "\
Examples:
  A run of one's own, against the limits that it had:
    ratelimit audit fetched.csv 10/1s --html fetched.html
  What parallel made of it:
    parallel --joblog jobs -j8 fetch < urls.txt; ratelimit audit jobs 10/1s
  An access log of nginx in lines of JSON, whose times are when each request ENDED:
    ratelimit audit access.jsonl 500/1m --end msec --duration request_time

Exit codes: 0 every limit was kept, 1 one was not, 4 none is known to be broken, but the log's times do
not tell of all that they were kept, 2 usage, 3 the log could not be read or something not written, 141
whoever reads the output has gone";

pub(crate) const AFTER_LONG_AUDIT_HELP: &str = "\
Examples:
  A run of one's own, against the limits that it had:
    ratelimit audit fetched.csv 10/1s --html fetched.html
  What parallel made of it:
    parallel --joblog jobs -j8 fetch < urls.txt; ratelimit audit jobs 10/1s
  An access log of nginx in lines of JSON, whose times are when each request ENDED:
    ratelimit audit access.jsonl 500/1m --end msec --duration request_time

Start or end:
  Most servers write a request to the log when it has ended, but not all stamp it with that moment.
  Taken for the other, a broken log can seem kept.
    nginx    $msec, $time_iso8601        --end    $request_time        seconds
    Caddy    ts                          --end    duration             seconds
    Apache   %t, %{usec}t (received)     --start  %D                   --duration-unit us
             %{end:usec}t                --end    %D                   --duration-unit us
    Envoy    %START_TIME%                --start  %DURATION%           --duration-unit ms
    Traefik  StartUTC                    --start  Duration             --duration-unit ns
    HAProxy  %tr, %t (received)          --start  %Ta                  --duration-unit ms
  Where the order of the lines or the name of a column speaks for the other, and the verdict would be
  worse, it CANNOT BE TOLD; --as-told believes you.

Exit codes:
    0  every limit was kept
    1  at least one limit was not, however the log's times are read
    2  the arguments do not make sense
    3  the log could not be read, or the chart, the page or the verdict not written
    4  no limit is known to be broken, but the log's times do not tell of all that they were kept
  141  whoever reads the output has gone";

pub(crate) const AFTER_HELP: &str = "\
Example: seq 60 | ratelimit run 20/200ms -- echo {}
Exit codes: 0 all well, 1 a task failed, 2 usage, 3 input or log, 126 or 127 no such command,
128 + N stopped by signal N (130: Ctrl-C), 141 whoever reads the output has gone
More with --help.";

pub(crate) const AFTER_LONG_HELP: &str = "\
Examples:
  Fetch every address in a file, ten a second at most, and keep a record:
    ratelimit run 10/1s --input urls.txt --log fetched.csv -- curl -sSfO {}

  Go on where a run was cut off, without a burst:
    ratelimit run 10/1s --input urls.txt --log fetched.csv --resume -- curl -sSfO {}

  500 requests and 90,000 tokens a minute, four at a time, three more tries for each:
    ratelimit run 500/1m 90000w/1m --input prompts.csv --weight tokens -j4 --retries 3 -- ask {prompt}

  A pipeline for each item:
    ls *.log | ratelimit run 5/1s --shell -- 'gzip -c {} | upload'

Placeholders:
  {}    the item              {.}   without its extension    {/}   without its folder
  {//}  its folder            {/.}  without both             {#}   its number, from 1
  With columns {1} and {name} are fields, and {1.}, {name/}, … parts of them; {.} and its
  like are those of every field, and {} is the record as it stands. A column asked for by
  name makes the first record the header. What cannot be meant as a placeholder is text, as
  in JSON and awk: {\"q\":\"x\"}, {print $1}; so are ${NAME} and, without columns, curl's
  %{name}. What can be and is none is refused before anything runs. {{ and }} are braces:
  {{name}} is passed on as {name}.
  With --shell write {} without quotes, never '{}' or \"{}\": an item is quoted already.

Input:
  A record is one item over all of its lines; one whose quote is never closed is not run,
  nor is anything of it. Lines that end in CR LF are told of once; --crlf takes the CR off
  (--csv and --tsv do by themselves). A byte order mark at the beginning is left out, except
  with -0.

Output:
  The output of each task is whole and in the order of the items, never interleaved.
  With -j1 and without --tag commands write to our own output as they run. Else it is read
  through pipes and waits for its turn: at most 4 MiB of it in memory, the rest in one
  file in TMPDIR, and of at most 100,000 tasks. What a command leaves in the background
  writes for nobody once the command has ended.

  A summary ends every run, with the first items that failed. Where standard error is a
  terminal, its last line says how far the run is and how long it takes at least, as the
  limits have it; with -j1, while no command runs. Elsewhere something is said of waits
  longer than 30 s.

  Once whoever reads the output has gone, nothing more is started (exit code 141). The
  same goes for messages that cannot be written. A stream that is closed from the start is
  as /dev/null.

Starting:
  A script without #! is run by sh. Where the system has no room for another process
  (descriptors, processes, memory), the start waits for it; neither the item nor its place
  under the limit is used up. The soft limit on descriptors is raised to the hard one
  where -j needs it; commands have the old one.

Terminal:
  With -j1 a command may read the terminal, as ssh and sudo do to ask for a password: it
  has the foreground from when it asks until it ends, and Ctrl-C and Ctrl-Z are for it so
  long. If Ctrl-C ends it, the run is interrupted as well. With -j2 or more, or where the
  items are typed, opening /dev/tty is an error at once.

Interrupting:
  Ctrl-C (or SIGTERM, SIGQUIT, SIGHUP) once: nothing more is started, and what runs may
  end. Twice: what runs is killed, with all that it started (a second SIGHUP kills
  nothing: terminals send two). To be killed is SIGTERM for the whole process group, and
  after a second SIGKILL for what is left of it. A SIGHUP that is ignored from the start,
  as by nohup, stays ignored. Commands run in process groups of their own, so Ctrl-C does
  not reach them directly, and with standard input empty. A run that is itself killed
  outright (SIGKILL) leaves its commands running; --resume counts as many as -j of them as
  having run until it began.

Exit codes:
    0  every task ended well
    1  at least one task failed, for good, or an item could not be run
    2  the arguments do not make sense
    3  the input could not be read, the log not read or written, or the output or a message not written
  126  the command may not be run: no permission, or a folder
  127  there is no such command
  130  interrupted (129 by SIGHUP, 131 by SIGQUIT, 143 by SIGTERM)
  141  whoever reads the output, or the messages, has gone

Log:
  seq,start_ns,end_ns,weight,exit_code,input; times in nanoseconds since the Unix epoch. A row is
  written as its task ends. exit_code is the command's own; 128 + N if signal N ended it, 124 if it took longer
  than --timeout, 126 or 127 if it could not be started. It holds whole rows even where the disk was full.

Resuming:
  A log has no row of what was running when its run was killed. As many as -j tasks count as
  having run until the resumed run begins, from the log's header on. Limits on tasks need no
  more, and the first item starts as soon as the windows allow. For limits on weight the
  weights of the first items that are still to be run count; until -j of those have been
  read, each that is missing counts as the heaviest that the limits allow, so an input that
  comes item by item may wait for up to a period. What was killed counts for --abandon-grace
  longer; nothing starts before that is over.";
