//! What can be wrong with a folder: each is an error that says so, and nothing is granted.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use strict_rate_limiter::{AcquireError, Limit, Permit, TryAcquireError};
use strict_rate_limiter_shared::folder::{forget, inspect};
use strict_rate_limiter_shared::{FolderError, SharedRateLimiter, SharedRateLimiterBuilder};
use tempfile::TempDir;

/// A place for a folder that is not there yet.
fn place() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("api.limit");
    (root, folder)
}

fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

fn builder(folder: &PathBuf) -> SharedRateLimiterBuilder {
    SharedRateLimiter::builder(folder).limit(limit("2/1h"))
}

fn error_of(builder: SharedRateLimiterBuilder) -> String {
    builder.open().unwrap_err().to_string()
}

#[test]
fn a_folder_without_a_state_counts_as_used_up_unless_it_is_said_to_be_new() {
    let (_root, folder) = place();
    let limiter = builder(&folder).open().unwrap();
    assert!(limiter.folder().was_without_state());
    assert!(!builder(&folder).open().unwrap().folder().was_without_state());
    assert!(matches!(limiter.try_acquire(), Err(TryAcquireError::Busy { not_before: Some(_) })));
    assert_eq!(limiter.stats().held[0].units, 2);
    drop(limiter);
    fs::remove_dir_all(&folder).unwrap();
    let limiter = builder(&folder).fresh().open().unwrap();
    limiter.try_acquire().unwrap().complete();
    // It is new no longer.
    let again = builder(&folder).fresh().open().unwrap();
    again.try_acquire().unwrap().complete();
    assert!(again.try_acquire().is_err());
    assert!(limiter.try_acquire().is_err());
}

#[test]
fn all_that_open_a_folder_have_one_limit_and_one_queue() {
    let (_root, folder) = place();
    let first = builder(&folder).fresh().open().unwrap();
    let second = SharedRateLimiter::open(&folder).unwrap();
    assert_eq!(second.limits(), [limit("2/1h")]);
    let permit = first.try_acquire().unwrap();
    // One at a time, whichever process it is.
    assert!(matches!(second.try_acquire(), Err(TryAcquireError::Busy { not_before: None })));
    assert_eq!((second.stats().running, first.stats().running), (1, 1));
    permit.complete();
    let permit = second.try_acquire().unwrap();
    permit.release_unused();
    first.pause_for(Duration::from_secs(3_600));
    assert!(second.try_acquire().is_err());
    assert!(second.paused_for() > Duration::from_secs(3_000));
    second.resume();
    second.try_acquire().unwrap().complete();
    assert!(first.try_acquire().is_err());
    first.set_limits([limit("3/1h")]).unwrap();
    assert_eq!(second.limits(), [limit("3/1h")]);
    second.try_acquire().unwrap().complete();
    first.close();
    assert!(first.is_closed() && !second.is_closed(), "each closes for itself");
}

#[test]
fn other_settings_are_refused_and_both_are_shown() {
    let (_root, folder) = place();
    assert!(
        error_of(SharedRateLimiter::builder(&folder)).ends_with("give at least one, such as 10/1s")
    );
    let _limiter = builder(&folder).concurrency(3).open().unwrap();
    let error = error_of(SharedRateLimiter::builder(&folder).limit(limit("5/1m")));
    let both = "has 2/1h, 3 tasks at once, and 5/1m, 3 tasks at once was asked for";
    assert!(error.ends_with(both), "{error}");
    let error = error_of(builder(&folder).concurrency(1).paced());
    assert!(error.ends_with("and 2/1h, paced, 1 task at once was asked for"), "{error}");
    // The same, in any order and with parts left out.
    builder(&folder).concurrency_if_new(7).open().unwrap();
    SharedRateLimiter::builder(&folder).concurrency(3).open().unwrap();
}

#[test]
fn an_opening_is_told_to_the_waiter_of_another_session() {
    let (_root, folder) = place();
    let limits = SharedRateLimiter::builder(&folder).limit(limit("1/20ms")).fresh();
    let first = limits.open().unwrap();
    let second = SharedRateLimiter::open(&folder).unwrap();
    let permit = first.try_acquire().unwrap();
    let waits = std::thread::spawn(move || second.acquire_blocking().map(Permit::complete));
    while first.stats().queued == 0 {
        std::thread::yield_now();
    }
    permit.complete();
    waits.join().unwrap().unwrap();
}

#[test]
fn a_session_that_is_gone_leaves_the_queue_and_its_task_has_ended() {
    let (_root, folder) = place();
    let limits = SharedRateLimiter::builder(&folder).limit(limit("1/20ms")).fresh();
    let dies = limits.open().unwrap();
    let permit = dies.try_acquire().unwrap();
    let mut waits = Box::pin(dies.acquire());
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    assert!(std::future::Future::poll(waits.as_mut(), &mut context).is_pending());
    // As if its process had been killed: nothing is told, and its files are closed.
    std::mem::forget(permit);
    std::mem::forget(waits);
    let survivor = SharedRateLimiter::open(&folder).unwrap();
    assert_eq!((survivor.stats().running, survivor.stats().queued), (1, 1));
    fs::remove_file(session_files(&folder).remove(0)).unwrap();
    let request = survivor.request().within(Duration::from_millis(300));
    let refused = request.acquire_blocking().unwrap_err();
    assert!(
        matches!(refused, AcquireError::DeadlineExceeded { .. }),
        "without its file it may live"
    );
}

#[test]
fn what_a_limiter_has_not_told_of_when_it_is_dropped_has_ended_then() {
    let (_root, folder) = place();
    let limiter = builder(&folder).fresh().open().unwrap();
    // As if the disk had been full when the task ended.
    std::mem::forget(limiter.try_acquire().unwrap());
    drop(limiter);
    assert_eq!(session_files(&folder).len(), 1);
    let next = builder(&folder).open().unwrap();
    assert_eq!(next.stats().running, 0);
    assert_eq!(session_files(&folder).len(), 1, "its own alone");
    next.try_acquire().unwrap().complete();
    drop(next);
    assert_eq!(session_files(&folder).len(), 0);
}

/// The files of the sessions, oldest first.
fn session_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("sessions")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_none());
    files.sort();
    files
}

#[test]
fn a_folder_that_is_removed_or_made_anew_is_noticed() {
    let (_root, folder) = place();
    let limiter = builder(&folder).fresh().open().unwrap();
    let permit = limiter.try_acquire().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let TryAcquireError::Store(error) = limiter.try_acquire().unwrap_err() else {
        panic!("granted")
    };
    assert!(matches!(error.downcast_ref(), Some(FolderError::Replaced { .. })), "{error}");
    assert!(
        error.to_string().ends_with("was removed or replaced while it was in use; open it again")
    );
    let anew = builder(&folder).fresh().open().unwrap();
    anew.try_acquire().unwrap().complete();
    let error = limiter.acquire_blocking().unwrap_err();
    assert!(matches!(error, AcquireError::Store(_)), "{error}");
    assert!(limiter.outage().is_some() && anew.outage().is_none());
    permit.complete();
    assert_eq!(anew.stats().held[0].units, 1, "the old one is told nothing of");
}

#[test]
fn every_damage_is_an_error() {
    let (_root, folder) = place();
    let limiter = builder(&folder).fresh().open().unwrap();
    limiter.try_acquire().unwrap().complete();
    limiter.try_acquire().unwrap().complete();
    drop(limiter);
    let path = folder.join("state");
    let whole = fs::read(&path).unwrap();
    let slot_len = whole.len() / 2;
    let sequence = |slot: usize| {
        let at = slot * slot_len - 32 + 8;
        u64::from_le_bytes(whole[at..at + 8].try_into().unwrap())
    };
    let (newer, older) = if sequence(1) > sequence(2) { (1, 2) } else { (2, 1) };
    let len_at = newer * slot_len - 32 + 16;
    let len = u64::from_le_bytes(whole[len_at..len_at + 8].try_into().unwrap()) as usize;
    let parts =
        [newer * slot_len - 32 - len..newer * slot_len, older * slot_len - 32..older * slot_len];
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for at in parts.into_iter().flatten() {
        for bit in 0..8 {
            file.write_all_at(&[whole[at] ^ (1 << bit)], at as u64).unwrap();
            let error = SharedRateLimiter::open(&folder).expect_err("damaged");
            let is_told = matches!(error, FolderError::Damaged { .. } | FolderError::Newer { .. });
            assert!(is_told, "bit {bit} of byte {at}: {error}");
        }
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
    // The state before is in use no more.
    file.write_all_at(&[7], (older * slot_len - 40) as u64).unwrap();
    assert!(SharedRateLimiter::open(&folder).unwrap().try_acquire().is_err());
}

#[test]
fn a_file_that_is_another_or_cut_off_is_refused() {
    let (_root, folder) = place();
    drop(builder(&folder).fresh().open().unwrap());
    drop(builder(&folder).open().unwrap());
    let path = folder.join("state");
    let whole = fs::metadata(&path).unwrap().len();
    for len in [whole - 1, whole - 16, whole / 2 + 7] {
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
        let error = builder(&folder).open().unwrap_err();
        let is_refused = matches!(error, FolderError::Damaged { .. });
        assert!(is_refused, "{len}: {error}");
    }
    // Nothing at all is a folder without a state, whose limits are used up.
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert!(builder(&folder).open().unwrap().try_acquire().is_err());
    for len in [1, 4_096, 1 << 25] {
        fs::write(&path, vec![b'x'; len]).unwrap();
        assert!(error_of(builder(&folder).fresh()).contains("damaged"), "{len} bytes");
    }
}

#[test]
fn a_newer_version_is_named() {
    let (_root, folder) = place();
    drop(builder(&folder).fresh().open().unwrap());
    let path = folder.join("state");
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // The trailer of the one state there is, with the layout's version raised and the checksum as it should be.
    let begin = file.metadata().unwrap().len() - 32;
    let mut trailer = [0; 32];
    file.read_exact_at(&mut trailer, begin).unwrap();
    trailer[4] += 1;
    let checksum = crc32fast::hash(&trailer[..28]);
    trailer[28..].copy_from_slice(&checksum.to_le_bytes());
    file.write_all_at(&trailer, begin).unwrap();
    assert!(error_of(builder(&folder)).ends_with("was written by a newer version (2)"));
}

#[test]
fn a_state_that_goes_back_is_noticed_by_those_who_have_seen_a_later_one() {
    let (_root, folder) = place();
    let limiter = builder(&folder).fresh().open().unwrap();
    let before = fs::read(folder.join("state")).unwrap();
    limiter.try_acquire().unwrap().complete();
    limiter.try_acquire().unwrap().complete();
    // A backup is put back, into the same file.
    let mut file = OpenOptions::new().write(true).open(folder.join("state")).unwrap();
    file.write_all(&before).unwrap();
    let error = limiter.try_acquire().unwrap_err().to_string();
    assert!(error.contains("it is older than it was"), "{error}");
    // It stays so, also when others have gone on from the older one.
    let other = SharedRateLimiter::open(&folder).unwrap();
    for _ in 0..5 {
        drop(other.try_acquire());
    }
    assert!(limiter.try_acquire().unwrap_err().to_string().contains("it is older than it was"));
}

#[test]
fn a_folder_that_others_may_write_in_or_that_is_no_folder_is_refused() {
    let (root, folder) = place();
    drop(builder(&folder).open().unwrap());
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for name in ["state", "sessions"] {
        let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: others have no part in it");
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    assert!(error_of(builder(&folder)).starts_with("every user may write in"));
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(error_of(builder(&file)).starts_with("cannot use"));
    let nowhere = root.path().join("no/such/parent");
    assert!(error_of(builder(&nowhere)).starts_with("cannot make the folder"));
}

#[test]
fn after_another_boot_the_limits_are_used_up_as_of_the_boot() {
    let (_root, folder) = place();
    let limits = || SharedRateLimiter::builder(&folder).limit(limit("2/1d"));
    let limiter = limits().fresh().open().unwrap();
    let _running = limiter.try_acquire().unwrap();
    drop(limits().open());
    let path = folder.join("state");
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let slot_len = file.metadata().unwrap().len() / 2;
    for slot in 1..=2 {
        // The boot's id is the state's first bytes: another one, and the checksums as they should be.
        let mut trailer = [0; 32];
        file.read_exact_at(&mut trailer, slot * slot_len - 32).unwrap();
        let len = u64::from_le_bytes(trailer[16..24].try_into().unwrap());
        let begin = slot * slot_len - 32 - len;
        let mut state = vec![0; usize::try_from(len).unwrap()];
        file.read_exact_at(&mut state, begin).unwrap();
        state[0] ^= 1;
        trailer[24..28].copy_from_slice(&crc32fast::hash(&state).to_le_bytes());
        let checksum = crc32fast::hash(&trailer[..28]);
        trailer[28..].copy_from_slice(&checksum.to_le_bytes());
        file.write_all_at(&state, begin).unwrap();
        file.write_all_at(&trailer, slot * slot_len - 32).unwrap();
    }
    let after = limits().open().unwrap();
    let stats = after.stats();
    assert_eq!((stats.running, stats.queued), (0, 0));
    let up = Duration::from_nanos(after.folder().clock().now_ns());
    let expected = if up < Duration::from_secs(86_400) { 2 } else { 0 };
    assert_eq!(stats.held[0].units, expected, "up for {up:?}");
}

#[test]
fn a_look_at_a_folder_tells_who_holds_and_who_waits_and_changes_nothing() {
    let (_root, folder) = place();
    assert!(inspect(&folder).is_err());
    let limits = SharedRateLimiter::builder(&folder).limit(limit("3w/1h")).limit(limit("5/1m"));
    let limiter = limits.fresh().open().unwrap();
    limiter.request().weight(2).try_acquire().unwrap().complete();
    let holds = limiter.try_acquire().unwrap();
    let mut waits = Box::pin(limiter.request().weight(2).acquire());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(std::future::Future::poll(waits.as_mut(), &mut context).is_pending());
    limiter.pause_for(Duration::from_secs(100));
    let before = fs::read(folder.join("state")).unwrap();
    let seen = inspect(&folder).unwrap();
    assert_eq!(seen.held.iter().map(|held| held.units).collect::<Vec<_>>(), [3, 2]);
    assert_eq!((seen.running, seen.completed, seen.opens_in_ns), (1, 1, None));
    assert!(seen.paused_for_ns > 0);
    let (holder, waiter) = (&seen.holders[0], &seen.waiters[0]);
    assert_eq!((holder.weight, waiter.weight), (1, 2));
    assert_eq!(holder.process.id, Some(std::process::id()));
    assert!(holder.process.command.contains("folder") && holder.process.may_live);
    assert_eq!(holder.process, waiter.process);
    assert!(fs::read(folder.join("state")).unwrap() == before);
    drop(waits);
    holds.complete();
    assert!(inspect(&folder).unwrap().opens_in_ns.is_some());

    forget(&folder).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert!(!folder.exists() && limiter.outage().is_some());

    // Opened without limits, it has no more than an empty state.
    assert!(SharedRateLimiter::open(&folder).is_err());
    forget(&folder).unwrap();
    assert!(!folder.exists());
}

/// What a process of its own does, if `SHARED_TEST_CHILD` says so: not a test by itself.
#[test]
fn child() {
    let Ok(folder) = std::env::var("SHARED_TEST_CHILD") else { return };
    let limiter = SharedRateLimiter::open(&folder).unwrap();
    // No file of this process may grow, as on a disk that is full. The signal is ignored, so that it is an error.
    let waits = limiter.acquire_blocking();
    println!("{}", waits.map_or_else(|error| error.to_string(), |_| "granted".to_owned()));
}

/// What a process of its own does that dies with a permit in its hands: not a test by itself.
#[test]
fn dies() {
    let Ok(folder) = std::env::var("SHARED_TEST_DIES") else { return };
    let limiter = SharedRateLimiter::open(&folder).unwrap();
    let _permit = limiter.acquire_blocking().unwrap();
    std::process::abort();
}

#[test]
fn a_dead_process_is_found_whatever_happened_to_those_who_looked_before() {
    let (_root, folder) = place();
    let limits = SharedRateLimiter::builder(&folder).limit(limit("9/1ms"));
    let limiter = limits.fresh().open().unwrap();
    let this = std::env::current_exe().unwrap();
    let mut dies = std::process::Command::new(&this);
    dies.args(["--exact", "dies"]).env("SHARED_TEST_DIES", &folder);
    assert!(!dies.output().unwrap().status.success());
    assert_eq!(limiter.stats().running, 1);
    // It finds the dead one, and cannot write that.
    let mut full = std::process::Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact child --nocapture"]);
    full.arg(&this).env("SHARED_TEST_CHILD", &folder);
    assert!(!full.output().unwrap().status.success());
    let request = limiter.request().within(Duration::from_secs(60));
    request.acquire_blocking().unwrap().complete();
}

#[test]
fn who_opens_a_folder_while_it_is_forgotten_keeps_its_own_files() {
    let (_root, folder) = place();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = forget(&folder);
            }
        });
        let mut opened = 0;
        while opened < 200 {
            // Its parts may go while it is opened; that is an error.
            let Ok(limiter) = builder(&folder).open() else { continue };
            opened += 1;
            // Its own file is there, or it is told that the folder is gone.
            let label = limiter.folder().label(limiter.folder().session());
            std::thread::sleep(Duration::from_millis(2));
            assert!(label.is_some() || limiter.outage().is_some(), "the file was removed");
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_folder_that_is_copied_back_counts_as_used_up() {
    let (root, folder) = place();
    drop(builder(&folder).fresh().open().unwrap());
    let backup = root.path().join("backup");
    fs::create_dir(&backup).unwrap();
    fs::copy(folder.join("state"), backup.join("state")).unwrap();
    let limiter = builder(&folder).open().unwrap();
    limiter.try_acquire().unwrap().complete();
    limiter.try_acquire().unwrap().complete();
    drop(limiter);
    fs::remove_dir_all(&folder).unwrap();
    fs::rename(&backup, &folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    let again = SharedRateLimiter::open(&folder).unwrap();
    assert!(again.try_acquire().is_err());
    assert_eq!(again.stats().held[0].units, 2);
}

#[test]
fn a_folder_of_a_group_is_open_to_the_group_whatever_the_umask_is() {
    let (_root, folder) = place();
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o2770)).unwrap();
    let _limiter = builder(&folder).open().unwrap();
    for (name, mode) in [("state", 0o660), ("sessions", 0o770), ("sessions/0", 0o660)] {
        let is = fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(is, mode, "{name}: {is:o}");
    }
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_granted() {
    let (_root, folder) = place();
    let limits = SharedRateLimiter::builder(&folder).limit(limit("9/1h")).fresh();
    let limiter = limits.open().unwrap();
    let child = |limit: &str| {
        let mut command = std::process::Command::new("sh");
        // Files may not be written beyond so many blocks of 512 bytes; ignoring the signal makes that an error.
        let script =
            format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" --exact child --nocapture");
        command.args(["-c", &script]).arg(std::env::current_exe().unwrap());
        let output = command.env("SHARED_TEST_CHILD", &folder).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text + &String::from_utf8_lossy(&output.stderr)
    };
    assert!(child("unlimited").contains("granted"));
    let before = limiter.stats().completed;
    let text = child("1");
    assert!(text.contains("File too large") && !text.contains("granted"), "{text}");
    assert_eq!(limiter.stats().completed, before);
    limiter.try_acquire().unwrap().complete();
}
