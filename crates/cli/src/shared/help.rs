//! The help texts of `status`, `set` and `forget` after their options.

pub(crate) const AFTER_STATUS_HELP: &str = "\
Examples:
  How full is it, and who is in the way?
    ratelimit status api
  Has it opened?
    ratelimit status api --json | jq .opens_in_ns

JSON, with durations in nanoseconds:
  folder           the folder that holds the limit
  limits           an array; each has limit (as text), unit (task or weight), rate, per_ns, and held:
                   the units that count now, of running tasks and of those that ended less than per ago
  concurrency      the tasks that may run at once, in all processes together
  paced, abandon_grace_ns, clock_drift_ppm   as the options of run
  running, completed   numbers of tasks: now, and since the folder was made
  holders          the running tasks, oldest first; each has pid, command, state, weight, since_ns.
                   pid is null if the process has left no note. state is \"alive\"; \"orphaned\", if it was
                   killed and something that it started runs on; or \"gone\", if nothing of it runs: the
                   next process that uses the limit counts its tasks as ended then
  waiters          those who wait, first to last; each has pid, command, state, weight
  opens_in_ns      until the first waiter, or a task of weight 1, can start; 0 if now, null if that
                   depends on running tasks
  paused_for_ns    how long a pause lasts; 0 if there is none

Exit codes: 0 all well, 2 usage, 3 there is no such limit, or it cannot be read, 141 the reader of the
output has gone";

pub(crate) const AFTER_SET_HELP: &str = "\
Examples:
  The provider has raised our quota:
    ratelimit set api 1000/1m
  Four tasks at once, under the same limits:
    ratelimit set api -j4

Exit codes: 0 all well, 2 usage, 3 there is no such limit, or it cannot be changed";

pub(crate) const AFTER_FORGET_HELP: &str = "\
Example: ratelimit forget api

What runs goes on, but is no longer counted, and what waits ends with an error. The next use of the name
makes a new limit, which counts as used up when it is made: so it waits up to the longest period, which
is enough for all that has ended by then, but not for tasks that still run.

Exit codes: 0 all well, 1 the answer was no, 2 usage, or nobody can be asked, 3 there is no such limit,
or it cannot be removed";
