//! The clock that all processes of a machine share: nanoseconds since the machine started, suspends included. Nobody
//! can set it. The only file of this crate that reads a clock.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::error::FolderError;

/// Identifies the time from one start of the machine to the next.
pub(super) type BootId = [u8; 16];

#[cfg(any(target_os = "linux", target_os = "android"))]
const BOOT_CLOCK: ClockId = ClockId::Boottime;
/// On macOS this clock goes on while the machine sleeps.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const BOOT_CLOCK: ClockId = ClockId::Monotonic;

/// The machine's boot clock.
#[derive(Debug, Clone, Copy)]
pub struct BootClock {
    /// How far this process's view of the clock is shifted from the machine's (a time namespace of Linux).
    shift_ns: i64,
}

impl BootClock {
    pub(super) fn new() -> Self {
        Self { shift_ns: namespace_shift().unwrap_or(0) }
    }

    /// Nanoseconds since the machine started.
    pub fn now_ns(&self) -> u64 {
        let time = clock_gettime(BOOT_CLOCK);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
        let since = Duration::new(seconds, nanoseconds).as_nanos();
        let ns = u64::try_from(since).unwrap_or(u64::MAX);
        ns.saturating_add_signed(self.shift_ns.saturating_neg())
    }
}

/// The shift of the boot clock in this process's time namespace: `boottime SECONDS NANOSECONDS`.
fn namespace_shift() -> Option<i64> {
    // The file is about the children's namespace, which may be another one.
    let own = fs::read_link("/proc/self/ns/time").ok()?;
    if own != fs::read_link("/proc/self/ns/time_for_children").ok()? {
        return None;
    }
    let offsets = fs::read_to_string("/proc/self/timens_offsets").ok()?;
    let line = offsets.lines().find(|line| line.starts_with("boottime"))?;
    let mut numbers = line.split_whitespace().skip(1).map(str::parse::<i64>);
    let (seconds, nanoseconds) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// The present boot's id.
pub(super) fn boot_id() -> Result<BootId, FolderError> {
    let text = read_boot_id()?;
    let mut digits = text.bytes().filter_map(|byte| char::from(byte).to_digit(16));
    let mut id = BootId::default();
    for byte in &mut id {
        let pair = digits.next().zip(digits.next());
        let (high, low) = pair.ok_or(FolderError::NoBootId)?;
        *byte = (high * 16 + low) as u8;
    }
    Ok(id)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn read_boot_id() -> Result<String, FolderError> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|_| FolderError::NoBootId)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn read_boot_id() -> Result<String, FolderError> {
    let sysctl = std::process::Command::new("/usr/sbin/sysctl");
    let output = { sysctl }.args(["-n", "kern.bootsessionuuid"]).output();
    let output = output.map_err(|_| FolderError::NoBootId)?;
    String::from_utf8(output.stdout).map_err(|_| FolderError::NoBootId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_and_the_boot_stays_the_same() {
        let clock = BootClock::new();
        let (before, boot) = (clock.now_ns(), boot_id().unwrap());
        assert!(before > 0 && clock.now_ns() >= before);
        assert_eq!(boot_id().unwrap(), boot);
        assert_ne!(boot, BootId::default());
    }
}
