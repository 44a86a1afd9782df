//! The texts of the help after the options: examples, details, exit codes.

pub(crate) const AFTER_PIPE_HELP: &str = "\
Examples:
  Ten lines a second to whatever reads them:
    tail -f access.log | ratelimit pipe 10/1s | ./notify
  At most 500 messages and a million bytes a second:
    ratelimit pipe 500/1s 1000000w/1s --bytes -i messages.jsonl | nc localhost 9000
  Ten lines a second, together with all other runs and pipes of the shared limit `notify`:
    tail -f access.log | ratelimit pipe 10/1s --shared notify | ./notify

With --shared, a line that its reader does not read holds up everything else under the limit. Other limits than
those that it has are refused (ratelimit set changes them), and so is anything else that is given and differs.

If the reader hands lines on to other programs, what those do with them is not counted.

Exit codes: 0 all well, 2 usage, 3 input, output or the shared limit, 141 the reader of the output has gone";

pub(crate) const AFTER_AUDIT_HELP: &str = "\
Examples:
  A run of ratelimit, against its limits:
    ratelimit audit fetched.csv 10/1s --html fetched.html
  A run of GNU parallel:
    parallel --joblog jobs -j8 fetch < urls.txt; ratelimit audit jobs 10/1s
  An access log of nginx in lines of JSON, whose times are when each request ENDED:
    ratelimit audit access.jsonl 500/1m --end msec --duration request_time

Exit codes: 0 every limit was kept, 1 one was broken, 4 none is known to be broken, but the log's times are
too coarse to tell that all were kept, 2 usage, 3 the log could not be read or a file not written, 141
the reader of the output has gone";

pub(crate) const AFTER_LONG_AUDIT_HELP: &str = "\
Examples:
  A run of ratelimit, against its limits:
    ratelimit audit fetched.csv 10/1s --html fetched.html
  A run of GNU parallel:
    parallel --joblog jobs -j8 fetch < urls.txt; ratelimit audit jobs 10/1s
  An access log of nginx in lines of JSON, whose times are when each request ENDED:
    ratelimit audit access.jsonl 500/1m --end msec --duration request_time

Start or end:
  Most servers log a request when it has ended, but some of them log the time of its start. If you take
  one for the other, a broken limit can seem kept.
    nginx    $msec, $time_iso8601        --end    $request_time        seconds
    Caddy    ts                          --end    duration             seconds
    Apache   %t, %{usec}t (received)     --start  %D                   --duration-unit us
             %{end:usec}t                --end    %D                   --duration-unit us
    Envoy    %START_TIME%                --start  %DURATION%           --duration-unit ms
    Traefik  StartUTC                    --start  Duration             --duration-unit ns
    HAProxy  %tr, %t (received)          --start  %Ta                  --duration-unit ms
  If the order of the lines or the name of a column suggests the other, and the verdict would be worse
  then, the verdict is CANNOT BE TOLD. --as-told turns this check off.

Exit codes:
    0  every limit was kept
    1  at least one limit was broken, wherever within their error bounds the times really were
    2  the arguments do not make sense
    3  the log could not be read, or the chart, the page or the verdict not written
    4  no limit is known to be broken, but the log's times are too coarse to tell that all were kept
  141  the reader of the output has gone";

pub(crate) const AFTER_HELP: &str = "\
Example: seq 60 | ratelimit run 20/200ms -- echo {}
Exit codes: 0 all well, 1 a task failed, 2 usage, 3 input, log or shared limit, 126 or 127 no such command,
128 + N stopped by signal N (130: Ctrl-C), 141 the reader of the output has gone
More with --help.";

pub(crate) const AFTER_LONG_HELP: &str = "\
Examples:
  Fetch every address in a file, ten a second at most, and keep a record:
    ratelimit run 10/1s --input urls.txt --log fetched.csv -- curl -sSfO {}

  Resume a run that was killed, without a burst:
    ratelimit run 10/1s --input urls.txt --log fetched.csv --resume -- curl -sSfO {}

  500 requests and 90,000 tokens a minute, four at a time, up to three retries for each:
    ratelimit run 500/1m 90000w/1m --input prompts.csv --weight tokens -j4 --retries 3 -- ask {prompt}

  One limit for several shells and cron jobs: each of them runs
    ratelimit run 20/2s --shared api --input urls.txt -- curl -sSfO {}

  A pipeline for each item:
    ls *.log | ratelimit run 5/1s --shell -- 'gzip -c {} | upload'

Placeholders:
  {}    the item              {.}   without its extension    {/}   without its folder
  {//}  its folder            {/.}  without both             {#}   its number, from 1
  With columns, {1} and {name} are fields, and {1.}, {name/}, … are parts of fields. {.}, {/}
  and so on are that part of every field, and {} is the whole record. If the command names a
  column, the first record is the header. Braces that cannot be a placeholder are text, as in
  JSON and awk: {\"q\":\"x\"}, {print $1}; so are ${NAME} and, without columns, curl's %{name}.
  Braces that look like a mistyped placeholder are an error before anything runs. {{ and }}
  stand for single braces: {{name}} is passed on as {name}.
  With --shell, write {} without quotes, never '{}' or \"{}\": ratelimit quotes each item.

Input:
  A CSV record is one item, even over several lines. A record whose quote is never closed is
  not run. If lines end in CR LF, a message says so once; --crlf removes the CR (--csv and
  --tsv always do). A byte order mark at the beginning is removed, except with -0.

Output:
  The output of each task is written whole, in the order of the items, never interleaved.
  With -j1 and without --tag, commands write directly to the output of ratelimit. Otherwise
  ratelimit reads their output through pipes and holds it back until its turn: at most 4 MiB
  in memory, the rest in one file in TMPDIR, for at most 100,000 tasks. Output that a
  background process writes after its command has ended is discarded.

  A summary with the first failed items ends every run. If standard error is a terminal, its
  last line shows the progress and the least time that the limits leave; with -j1 only while
  no command runs. Without a terminal, a message reports waits longer than 30 s.

  Once the reader of the output has gone, nothing more is started (exit code 141). The same
  holds if a message cannot be written. A stream that is closed from the start acts as
  /dev/null.

Sharing:
  All that says --shared NAME on this machine, as the same user, runs under one limit and in one
  queue, however many processes there are, and however they end. A name is a folder in
  $XDG_STATE_HOME/ratelimit (~/.local/state/ratelimit); a path with a / is the folder itself,
  on a local disk. ratelimit status NAME shows the limit, set changes it, forget removes it.

  The first run makes the folder, with its limits, --paced, --abandon-grace and --clock-drift;
  later ones may leave those out. One that is given and differs is an error that shows both.
  -j is about this run: how many commands it starts at once. Its first run's -j is also how many
  may run at once in all processes together. A higher -j is then an error, until ratelimit set
  NAME -j N raises that; a lower one bounds the run alone.

  Limits without a record of what ran before count as used up when their folder is made: the
  first task waits for as long as the longest period, and a message says so. --fresh says that
  nothing ran. A --log is not read for this: --resume skips items, and the folder alone knows
  what ran. So tasks that ran without --shared, or under another name, do not count.

  If ratelimit is killed by SIGKILL, what its commands hold counts until all that they started
  has ended, and then for --abandon-grace and the period. They inherit an open file for this.
  Programs that close files which they do not know, as ssh and sudo do, let go of it: for them
  --abandon-grace has to cover the time that they may still run.

  A command that runs ratelimit under the same limit would wait for itself. On Linux that is an
  error, unless the limit leaves room for both.

  If the folder fails (removed, a full disk), nothing more is started (exit code 3), what runs
  may end, and the summary counts the items that were never started.

Starting:
  sh runs scripts without #!. If the system lacks descriptors, processes or memory, the
  start is tried again until it succeeds, and uses up neither the item nor its permit. If -j
  needs more descriptors, ratelimit raises its soft limit to the hard one; commands keep the
  old limit.

Terminal:
  With -j1 a command may read the terminal, as ssh and sudo do to ask for a password. It then
  has the foreground until it ends, and Ctrl-C and Ctrl-Z go to it. If Ctrl-C ends it, the run
  is interrupted as well. With -j2 or more, or if items are typed, opening /dev/tty fails at
  once.

Interrupting:
  The first Ctrl-C (or SIGTERM, SIGQUIT, SIGHUP) starts nothing more and lets running commands
  end. The second one kills them, with all that they started (but a second SIGHUP does not:
  terminals send two). A kill is SIGTERM for the whole process group, and a second later
  SIGKILL for the rest of it. If SIGHUP is ignored from the start, as by nohup, it stays
  ignored. Commands run in process groups of their own, so Ctrl-C does not reach them
  directly; their standard input is empty. If ratelimit itself is killed by SIGKILL, its
  commands go on. --resume then counts -j tasks as running until the resumed run began.

Exit codes:
    0  every task ended well
    1  at least one task failed in all its tries, or an item could not be run
    2  the arguments do not make sense
    3  the input or the log could not be read, or the log, the output or a message not written, or
       the folder of the shared limit cannot be used
  126  the command cannot be run: no permission, or a folder
  127  there is no such command
  130  interrupted (129 by SIGHUP, 131 by SIGQUIT, 143 by SIGTERM)
  141  the reader of the output or of the messages has gone

Log:
  seq,start_ns,end_ns,weight,exit_code,input; times in nanoseconds since the Unix epoch. Each row is
  written when its task ends. exit_code is that of the command; 128 + N if signal N ended it, 124 if it
  took longer than --timeout, 126 or 127 if it could not be started. The log has only whole rows, even
  after the disk was full.

Resuming:
  The log has no rows for tasks that were running when a run was killed. So once the log has a
  header, -j tasks count as running until the resumed run begins. For limits on tasks this is
  enough, and the first item starts as soon as the windows allow. For limits on weight, the
  weights of the next items count. Until -j of them have been read, each missing one counts as
  the heaviest task that the limits allow, so a slow input may wait for up to a period. Killed
  tasks count for --abandon-grace longer, and nothing starts before that is over.";
