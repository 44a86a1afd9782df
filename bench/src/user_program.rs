//! Runs programs of their own (`bench/user-program`) as users build them, and reads their measurements.

use std::error::Error;
use std::process::Command;

use serde::Serialize;

use crate::spread::Spread;

/// What one task costs in a user's program, of one kind of build.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct UserProgram {
    pub(crate) build: &'static str,
    pub(crate) ours_ns: Spread,
    pub(crate) theirs_ns: Spread,
    /// Ours divided by theirs, round by round.
    pub(crate) ratio: Spread,
}

/// What one task costs where each of many keys has a limiter.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ManyKeys {
    pub(crate) keys: u64,
    pub(crate) ours_ns: Spread,
    pub(crate) theirs_ns: Spread,
    /// Ours divided by theirs, round by round.
    pub(crate) ratio: Spread,
}

/// What a key takes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct KeyBytes {
    pub(crate) what: String,
    pub(crate) bytes: u64,
}

/// Everything that the programs measure.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct UserPrograms {
    pub(crate) one_limiter: Vec<UserProgram>,
    pub(crate) many_keys: Vec<ManyKeys>,
    pub(crate) key_bytes: Vec<KeyBytes>,
}

const BUILDS: [(&str, &str); 2] = [("plain release", "release"), ("with LTO", "lto")];

/// Builds and runs both programs.
pub(crate) fn measure() -> Result<UserPrograms, Box<dyn Error>> {
    let mut measured = UserPrograms::default();
    for (build, profile) in BUILDS {
        let said = run("user-program", profile)?;
        let rounds = said.lines().map(pair).collect::<Result<Vec<_>, _>>()?;
        let [ours_ns, theirs_ns, ratio] = spreads(&rounds);
        measured.one_limiter.push(UserProgram { build, ours_ns, theirs_ns, ratio });
    }
    let said = run("keys", "release")?;
    let lines = |kind: &str| {
        let of_kind = |line: &str| line.strip_prefix(kind)?.trim().rsplit_once(' ').map(own_both);
        said.lines().filter_map(of_kind).collect::<Vec<_>>()
    };
    for (what, bytes) in lines("bytes") {
        measured.key_bytes.push(KeyBytes { what, bytes: bytes.parse()? });
    }
    let mut sizes: Vec<(u64, Vec<(f64, f64)>)> = vec![];
    for (keys_and_ours, theirs) in lines("ns") {
        let (keys, ours) = keys_and_ours.split_once(' ').ok_or("no figures")?;
        let (keys, round) = (keys.parse()?, (ours.parse()?, theirs.parse()?));
        match sizes.last_mut() {
            Some((last, rounds)) if *last == keys => rounds.push(round),
            _ => sizes.push((keys, vec![round])),
        }
    }
    for (keys, rounds) in sizes {
        let [ours_ns, theirs_ns, ratio] = spreads(&rounds);
        measured.many_keys.push(ManyKeys { keys, ours_ns, theirs_ns, ratio });
    }
    Ok(measured)
}

fn own_both((first, second): (&str, &str)) -> (String, String) {
    (first.into(), second.into())
}

fn run(program: &str, profile: &str) -> Result<String, Box<dyn Error>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--quiet", "--package", "user-program"]);
    command.args(["--profile", profile, "--bin", program]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn pair(line: &str) -> Result<(f64, f64), Box<dyn Error>> {
    let (ours, theirs) = line.split_once(' ').ok_or("no figures")?;
    Ok((ours.parse()?, theirs.parse()?))
}

fn spreads(rounds: &[(f64, f64)]) -> [Spread; 3] {
    let of = |number: fn(&(f64, f64)) -> f64| Spread::of(rounds.iter().map(number).collect());
    [of(|round| round.0), of(|round| round.1), of(|round| round.0 / round.1)]
}
