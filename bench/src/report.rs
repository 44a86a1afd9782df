//! Writes the figures as text: the page docs/bench.md, the README's tables, and JSON.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use crate::cost::Cost;
use crate::growth::Growth;
use crate::peers::PEERS;
use crate::shared::Shared;
use crate::strictness::{Latency, Seen};
use crate::user_program::{KeyBytes, ManyKeys, UserProgram, UserPrograms};
use crate::utilisation::{PERIODS, Utilisation};

/// All measurements.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) cores: usize,
    pub(crate) calls: u32,
    pub(crate) strictness: Vec<Seen>,
    pub(crate) utilisation: Vec<Utilisation>,
    pub(crate) alone: Vec<Cost>,
    pub(crate) contended: Vec<Cost>,
    pub(crate) user_programs: UserPrograms,
    pub(crate) with_rate: Vec<Growth>,
    pub(crate) with_waiters: Vec<Growth>,
    pub(crate) shared: Shared,
}

impl Figures {
    /// The fullest window of a peer that the server saw, in any pattern of arrivals, divided by the limit.
    pub(crate) fn worst(&self, peer: &str, latency: Latency) -> Option<f64> {
        let runs = self.strictness.iter().filter(|seen| seen.peer == peer);
        runs.filter(|seen| seen.latency == latency).map(|seen| seen.of_limit).reduce(f64::max)
    }

    /// Whether the server saw no overflow of ours.
    pub(crate) fn ours_is_strict(&self) -> bool {
        let ours = PEERS.iter().filter(|peer| peer.is_ours);
        let worst =
            ours.flat_map(|peer| Latency::ALL.map(|latency| self.worst(peer.name, latency)));
        worst.flatten().all(|worst| worst <= 1.0)
    }

    /// Writes the page, the JSON, and the README's tables.
    pub(crate) fn write(&self, page: &Path, json: &Path, readme: Option<&Path>) -> io::Result<()> {
        fs::write(page, self.page())?;
        fs::write(json, serde_json::to_string_pretty(self)? + "\n")?;
        if let Some(readme) = readme {
            let text = fs::read_to_string(readme)?;
            let text = replace_between(&text, "peers", &self.table_of_peers());
            let text = replace_between(&text, "cost", &self.table_of_cost());
            fs::write(readme, text)?;
        }
        Ok(())
    }

    /// The table of peers with their fullest windows.
    pub(crate) fn table_of_peers(&self) -> String {
        let mut table = String::from("| | model | order |");
        let latencies: Vec<Latency> =
            Latency::ALL.into_iter().filter(|l| self.worst(PEERS[0].name, *l).is_some()).collect();
        for latency in &latencies {
            let _ = write!(table, " {} |", latency.name());
        }
        table += "\n|---|---|---|";
        table += &"---|".repeat(latencies.len());
        table += "\n";
        for peer in PEERS {
            let bold = if peer.is_ours { "**" } else { "" };
            let _ =
                write!(table, "| {bold}{}{bold} | {} | {} |", peer.name, peer.model, peer.order);
            for latency in &latencies {
                let worst = self.worst(peer.name, *latency).unwrap_or_default();
                let _ = write!(table, " {bold}{worst:.2}{bold} |");
            }
            table += "\n";
        }
        table
    }

    /// The README's table of our cost.
    fn table_of_cost(&self) -> String {
        let mut table = String::from("| figure | measured | aim |\n|---|---|---|\n");
        let beside = |costs: &[Cost], ours: &str, other: &str| {
            let find = |name: &str| costs.iter().find(|cost| cost.name.starts_with(name)).cloned();
            let (ours, other) = (find(ours)?, find(other)?);
            let ratio = ours.ns.median / other.ns.median;
            Some(format!("{ratio:.2} ({:.0} ns to {:.0} ns)", ours.ns.median, other.ns.median))
        };
        let mut row = |figure: &str, measured: Option<String>, aim: &str| {
            let _ = writeln!(table, "| {figure} | {} | {aim} |", measured.unwrap_or_default());
        };
        row(
            "acquire + complete, never limiting, beside governor `until_ready` + tokio `Mutex`",
            beside(&self.alone, "strict", "governor `until_ready` + "),
            "≤ 0.8",
        );
        row(
            "the same by key, a thousand keys, beside the plain limiter",
            beside(&self.alone, "strict-rate-limiter, keyed", "strict"),
            "none",
        );
        row(
            "the same by key, beside governor's keyed `until_key_ready`, which keeps no order",
            beside(&self.alone, "strict-rate-limiter, keyed", "governor, keyed"),
            "none",
        );
        row(
            "the same, two threads contending, beside tokio `Semaphore(1)`",
            beside(&self.contended, "strict", "tokio `Semaphore(1)`"),
            "≤ 1.2",
        );
        let ns = |growth: &[Growth]| {
            let ns = growth.iter().map(|growth| format!("{:.0} ns", growth.ns.median));
            Some(ns.collect::<Vec<_>>().join(", "))
        };
        row(
            "cost in a full window of 10, 1,000, 100,000 and 10,000,000",
            ns(&self.with_rate),
            "≤ 1.5 times",
        );
        row("cost with 1, 1,000 and 1,000,000 waiters", ns(&self.with_waiters), "≤ 1.5 times");
        let used = |per_ms| {
            let ours = self
                .utilisation
                .iter()
                .find(|used| used.peer == PEERS[0].name && used.per_ms == per_ms);
            ours.map_or(String::new(), |ours| format!("{:.3}", ours.used.median))
        };
        row(
            "utilisation under a binding limit, `per` = 1 s, 10 ms, 1 ms",
            Some([used(1_000), used(10), used(1)].join(", ")),
            "0.999, 0.99, 0.95",
        );
        let mut bytes =
            self.with_rate.iter().filter_map(|growth| growth.bytes.zip(Some(growth.size)));
        let most = bytes.clone().map(|(bytes, _)| bytes).max().unwrap_or_default();
        let each = bytes.rfind(|(_, rate)| *rate <= 65_536);
        let each = each.map_or(0.0, |(bytes, rate)| bytes as f64 / rate as f64);
        row(
            "memory for each completion in a full window; at any rate",
            Some(format!("{each:.0} bytes; {:.2} MiB", most as f64 / f64::from(1 << 20))),
            "16 bytes; 1.1 MiB",
        );
        table
    }

    fn page(&self) -> String {
        let mut page = String::from(HEAD);
        let _ = writeln!(
            page,
            "Measured on {} shared cores. Nanoseconds depend on the machine: compare ratios, and look at the \
             spread.\n",
            self.cores
        );
        page += STRICTNESS;
        page += &self.table_of_peers();
        page += "\n![The fullest window of each](bench/strictness.svg)\n\n";
        let _ = writeln!(
            page,
            "All {} runs. *Slowdown* is the time that all {} calls took, divided by that of a full window \
             in every period.\n",
            self.strictness.len(),
            self.calls
        );
        page += "| peer | delay | arrivals | fullest window | of the limit | slowdown |\n";
        page += "|---|---|---|---|---|---|\n";
        for seen in &self.strictness {
            let Seen { peer, fullest, of_limit, slowdown, .. } = seen;
            let (latency, arrivals) = (seen.latency.name(), seen.arrivals.name());
            let _ = writeln!(
                page,
                "| {peer} | {latency} | {arrivals} | {fullest} | {of_limit:.2} | {slowdown:.2} |"
            );
        }
        page += UTILISATION;
        page += "| |";
        for (per_ms, _) in PERIODS {
            let _ = write!(page, " {per_ms} ms |");
        }
        page += "\n|---|---|---|---|---|\n";
        for peer in PEERS {
            let _ = write!(page, "| {} |", peer.name);
            for (per_ms, _) in PERIODS {
                let used = self.utilisation.iter();
                let mut used = used.filter(|used| used.peer == peer.name && used.per_ms == per_ms);
                let _ = write!(page, " {:.3} |", used.next().expect("measured").used);
            }
            page += "\n";
        }
        page += COST;
        page += "One task after another on one thread:\n\n";
        costs(&mut page, &self.alone);
        page += "\nTwo threads that alternate:\n\n";
        costs(&mut page, &self.contended);
        page += &user_programs(&self.user_programs);
        page += GROWTH;
        page += "| tasks in a full window | ns | bytes of its log |\n|---|---|---|\n";
        for growth in &self.with_rate {
            let Growth { size, ns, bytes } = growth;
            let _ = writeln!(page, "| {size} | {ns:.1} | {} |", bytes.unwrap_or_default());
        }
        page += "\n| waiters | ns |\n|---|---|\n";
        for Growth { size, ns, .. } in &self.with_waiters {
            let _ = writeln!(page, "| {size} | {ns:.1} |");
        }
        page += &shared(&self.shared);
        page
    }
}

/// The page's part on limits that processes share.
pub(crate) fn shared(measured: &Shared) -> String {
    let mut page = String::from(SHARED);
    let Shared { alone_ns, sqlite_ns, used, with_window, with_sessions } = measured;
    page += "| | ns | beside ours |\n|---|---|---|\n";
    let _ = writeln!(page, "| acquire + complete | {alone_ns:.0} | 1.00 |");
    if let Some(sqlite_ns) = sqlite_ns {
        let beside = sqlite_ns.median / alone_ns.median;
        let _ = writeln!(page, "| a transaction of SQLite | {sqlite_ns:.0} | {beside:.2} |");
    }
    page += "\n| period | used by eight processes | fullest window |\n|---|---|---|\n";
    for (per_ms, used, fullest) in used {
        let _ = writeln!(page, "| {per_ms} ms | {used:.3} | {fullest:.2} |");
    }
    page += "\n| completions in the window | ns |\n|---|---|\n";
    for (held, ns) in with_window {
        let _ = writeln!(page, "| {held} | {ns:.0} |");
    }
    page += "\n| sessions, each with a waiter | ns |\n|---|---|\n";
    for (sessions, ns) in with_sessions {
        let _ = writeln!(page, "| {sessions} | {ns:.0} |");
    }
    page
}

fn costs(page: &mut String, costs: &[Cost]) {
    *page += "| | ns | beside ours | instructions |\n|---|---|---|---|\n";
    let ours = costs.first().map_or(1.0, |ours| ours.ns.median);
    for Cost { name, ns, instructions } in costs {
        let counted = instructions.map_or("not counted".into(), |counted| counted.to_string());
        let _ = writeln!(page, "| {name} | {ns:.1} | {:.2} | {counted} |", ns.median / ours);
    }
}

/// The page's part on the programs of users.
pub(crate) fn user_programs(programs: &UserPrograms) -> String {
    let mut page = String::from(USER_PROGRAMS);
    page += "| build | ours, ns | governor + `Mutex`, ns | ours beside it |\n|---|---|---|---|\n";
    for UserProgram { build, ours_ns, theirs_ns, ratio } in &programs.one_limiter {
        let _ = writeln!(page, "| {build} | {ours_ns:.1} | {theirs_ns:.1} | {ratio:.2} |");
    }
    page += KEYS;
    page += "| keys | ours, ns | governor, keyed, ns | ours beside it |\n|---|---|---|---|\n";
    for ManyKeys { keys, ours_ns, theirs_ns, ratio } in &programs.many_keys {
        let _ = writeln!(page, "| {keys} | {ours_ns:.1} | {theirs_ns:.1} | {ratio:.2} |");
    }
    page += "\n| a key | bytes |\n|---|---|\n";
    for KeyBytes { what, bytes } in &programs.key_bytes {
        let _ = writeln!(page, "| {what} | {bytes} |");
    }
    page
}

/// Replaces the text between the marks of this name.
fn replace_between(text: &str, name: &str, new: &str) -> String {
    let (begin, end) = (format!("<!-- bench: {name} -->\n"), "<!-- bench: end -->");
    let Some((before, rest)) = text.split_once(&begin) else { return text.into() };
    let Some((_, after)) = rest.split_once(end) else { return text.into() };
    format!("{before}{begin}{new}{end}{after}")
}

/// The texts between the tables of the page.
const HEAD: &str = "# Measured against its peers

`cargo run --release -p bench` measures all of this in one run and writes this page, the charts beside it, \
[the figures as JSON](bench/figures.json) and the README's tables. [`bench/src/peers.rs`](../bench/src/peers.rs) \
sets up each peer for \"20 every 200 ms\", as its own documentation says.

";

const STRICTNESS: &str = "## Does the server see more than it allows?

A fake server counts each call at a random time of its delay, uniformly distributed. The table shows the \
fullest window that it saw, divided by the limit, in the worst of three patterns of arrivals. Over 1.00 the \
limit was broken. The limit is 20 per 200 ms, and all peers get the same calls.

![How full the server's window was, over time](bench/glance.svg)

";

const UTILISATION: &str = "
## How much of a limit is used

The number of empty tasks, back to back, divided by a full window in every period: median (least to most) of \
several runs. Over 1 the limit was broken.

![Utilisation by period](bench/utilisation.svg)

";

const COST: &str = "
## What it costs where nothing limits it

Nanoseconds for each task, median (least to most), measured in turn; and instructions, counted by callgrind, \
which do not depend on the load of the machine. (Instructions with our fast clock cannot be counted: under \
callgrind it finds its counter unsteady and asks the system instead. The second row is ours without that clock.)

![Cost of one task](bench/cost.svg)

";

const USER_PROGRAMS: &str = "
## What it costs in a user's program

`limiter.acquire().await?` and the permit dropped, beside governor's `until_ready` behind a tokio `Mutex`, at a limit \
of 10⁹ a second, in a crate and a process of their own ([`bench/user-program`](../bench/user-program)). Short rounds \
of the two in turn; median (least to most). Plain: `cargo run --release -p user-program`. With LTO: `cargo run \
--profile lto -p user-program`.

";

const KEYS: &str = "
A limiter for each key, 100 a minute for each, with part of each window in use \
([`keys.rs`](../bench/user-program/src/bin/keys.rs), `cargo run --release -p user-program --bin keys`), beside \
governor's keyed limiter:

";

const SHARED: &str = "
## Shared by processes, through a folder

First table: one process alone, never limiting, beside a transaction of SQLite that inserts a row (WAL, \
`synchronous=OFF`, by Python's module). Second table: tasks of no length in eight processes, 20 a period; how much of a \
full window in every period they use, and the fullest window of any run over the rate. Third and fourth table: a permit \
taken and given back in a window that is full but for one (above 4,096 completions, neighbours count as one); a task \
completed, the next waiter served, and one joining. `cargo run --release -p bench -- --part shared` measures this part alone.

";

const GROWTH: &str = "
## How ours grows

First table: a full window moves on by one task. Second table: one waiter is served and one joins.

";
