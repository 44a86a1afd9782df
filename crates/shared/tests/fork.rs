//! The child of a `fork` has no part in its parent's session: it is told so, and opens the folder itself.
//!
//! Time is real here. An alarm of the system ends a child that hangs, after a minute.

use std::time::Duration;

use strict_rate_limiter::TryAcquireError;
use strict_rate_limiter_shared::{FolderError, SharedRateLimiter};

/// Does `work` in a child, which must exit with success.
fn in_child(work: impl FnOnce()) {
    // SAFETY: the child allocates, which the C library allows after a fork, and uses nothing that another thread of the
    // parent may have locked: the limiter is at rest.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: it takes a number.
            unsafe { libc::alarm(60) };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: it ends the process and runs nothing of the parent's.
            unsafe { libc::_exit(i32::from(done.is_err())) };
        }
        child => {
            assert!(child > 0, "no child");
            let mut status = 0;
            // SAFETY: it waits for the child above and writes to the local.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child hung or panicked");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_limiter_that_is_dropped_leaves_no_thread() {
    let listening = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("shared-rate")).count()
    };
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("api.limit");
    for _ in 0..20 {
        let limits = SharedRateLimiter::builder(&folder).limit("1/1ms".parse().unwrap());
        let limiter = limits.open().unwrap();
        limiter.acquire_blocking().unwrap().complete();
        limiter.acquire_blocking().unwrap().complete();
    }
    // They end by themselves, a little later.
    while listening() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_child_is_refused_until_it_opens_the_folder_itself_and_ends_nothing_of_its_parents() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("api.limit");
    let limits = SharedRateLimiter::builder(&folder).limit("9/1h".parse().unwrap());
    let limiter = limits.concurrency(3).fresh().open().unwrap();
    let held = limiter.request().owned().try_acquire().unwrap();
    let mut copies = Some((limiter, held));
    in_child(|| {
        let (limiter, held) = copies.take().unwrap();
        let TryAcquireError::Store(error) = limiter.try_acquire().unwrap_err() else {
            panic!("another error")
        };
        assert!(matches!(error.downcast_ref(), Some(FolderError::Forked { .. })), "{error}");
        // The parent's task goes on, whatever happens to the child's copies.
        held.complete();
        drop(limiter);
        let own = SharedRateLimiter::open(&folder).unwrap();
        assert_eq!(own.stats().running, 1);
        own.try_acquire().unwrap().complete();
    });
    let (limiter, held) = copies.unwrap();
    let stats = limiter.stats();
    assert_eq!((stats.running, stats.completed, stats.held[0].units), (1, 1, 2));
    held.complete();
    let again = SharedRateLimiter::open(&folder).unwrap();
    assert_eq!(again.stats().completed, 2);
    assert!(again.request().within(Duration::from_secs(60)).acquire_blocking().is_ok());
}
