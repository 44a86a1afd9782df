//! A run that is killed (`kill -9`) again and again, and gone on with until it is done.
//!
//! Time is real here: processes are. A round kills at random moments; its seed is printed where it fails. The
//! long form, a hundred rounds, says what came of them:
//! `cargo test -p ratelimit-cli --test command kill_loop -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Folder, Row, assert_clean};

const LIMIT: &str = "20/200ms";

const ITEMS: usize = 60;

#[test]
fn nothing_is_lost_and_nothing_is_run_again_but_what_was_running() {
    let mut total = Round::default();
    for seed in seeds(4) {
        total.add(&round(seed));
    }
    assert!(total.kills >= 8, "{total:?}");
}

#[test]
#[ignore = "a hundred rounds take minutes"]
fn a_hundred_rounds() {
    let mut total = Round::default();
    for seed in seeds(100) {
        total.add(&round(seed));
    }
    println!("100 rounds of {ITEMS} items, -j1 and -j4 in turn: {total:?}");
}

/// What came of a round, or of many.
#[derive(Debug, Default)]
struct Round {
    kills: usize,
    /// Tasks beyond one for each item: what was running when it was killed.
    run_again: usize,
    torn_logs: usize,
}

impl Round {
    fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.run_again += other.run_again;
        self.torn_logs += other.torn_logs;
    }
}

fn seeds(rounds: u64) -> impl Iterator<Item = u64> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // Odd and even in turn: -j4 and -j1.
    let first = u64::from(since_epoch.subsec_nanos()) << 16 | since_epoch.as_secs() & 0xffff;
    first..first + rounds
}

fn round(seed: u64) -> Round {
    println!("seed {seed}");
    let mut random = Random(seed | 1 << 63);
    let concurrency = if seed.is_multiple_of(2) { 1 } else { 4 };
    let folder = Folder::new();
    // A third of them twice.
    let items: Vec<String> =
        (0..ITEMS).map(|item| format!("item {}", item % (ITEMS * 2 / 3))).collect();
    folder.write("items", items.join("\n"));
    let j = format!("-j{concurrency}");
    let options = [LIMIT, &j, "-i", "items", "--log", "log.csv", "--resume", "-q", "--shell", "--"];
    let options = [&options[..], &["echo {} >> started; sleep 0.00$(( $$ % 9 ))"]].concat();
    let mut came = Round::default();
    loop {
        let started = || folder.read("started").lines().count();
        let until = started() + random.below(ITEMS / 3) + 1;
        let mut child = folder.start(b"", &options);
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if started() >= until {
                break None;
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        if let Some(status) = ended {
            assert_eq!(status.code(), Some(0), "{}", crate::support::end(child).err);
            break;
        }
        std::thread::sleep(Duration::from_micros(random.below(3_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        came.kills += 1;
        let log = folder.read("log.csv");
        came.torn_logs += usize::from(!log.ends_with('\n'));
        let whole = log.rfind('\n').map_or(0, |end| end + 1);
        folder.write("whole.csv", &log[..whole]);
        let rows = if whole > 0 { folder.log("whole.csv") } else { vec![] };
        assert!(done(&rows).iter().all(|(item, times)| *times <= of(&items, item)));
    }
    let rows = folder.log("log.csv");
    let done = done(&rows);
    assert_eq!(rows.len(), ITEMS, "a row for each");
    assert!(items.iter().all(|item| done[item] == of(&items, item)), "none is lost: {done:?}");
    assert_clean(&rows, &[LIMIT]);
    let started = folder.read("started");
    for item in &items {
        let times = started.lines().filter(|line| line == item).count();
        assert!(times >= of(&items, item), "{item}");
    }
    came.run_again = started.lines().count() - ITEMS;
    assert!(came.run_again <= came.kills * concurrency, "more than was running: {came:?}");
    came
}

/// How often each input has ended well.
fn done(rows: &[Row]) -> BTreeMap<String, usize> {
    let mut done = BTreeMap::new();
    for row in rows.iter().filter(|row| row.exit_code == 0) {
        *done.entry(row.input.clone()).or_default() += 1;
    }
    done
}

fn of(items: &[String], item: &str) -> usize {
    items.iter().filter(|other| *other == item).count()
}

/// Xorshift: moments, and no more than that.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}
