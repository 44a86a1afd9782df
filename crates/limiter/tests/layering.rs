//! What each crate and module must not use, checked by searching its source text.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // Comments and their examples are not code of the module.
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            found.push((path, code.collect::<Vec<_>>().join("\n")));
        }
    }
    assert!(!found.is_empty(), "{} holds no source", folder.display());
    found
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn python() -> PathBuf {
    crates().parent().unwrap().join("python/src")
}

/// The text without its tests, which are at the end.
fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests").map_or(text, |(code, _)| code)
}

#[test]
fn in_the_library_only_the_clock_module_reads_a_clock() {
    let clock = crates().join("limiter/src/clock");
    // Of the module only these files: the real clock, the distance of a user's clock from it, how long
    // ago the kernel was asked, tokio's clock.
    let readers = ["real.rs", "timeline.rs", "tsc.rs", "tokio.rs"].map(|file| clock.join(file));
    for (path, text) in sources(&crates().join("limiter/src")) {
        let text = without_tests(&text);
        let reads = ["Instant::now", "SystemTime::now", ".elapsed()"];
        let reads = reads.iter().any(|word| text.contains(word));
        assert!(!reads || readers.contains(&path), "{}", path.display());
    }
}

#[test]
fn in_the_library_instants_are_where_users_give_or_get_them_and_in_the_clock_module() {
    let library = crates().join("limiter/src");
    let at_the_edge = ["control.rs", "deadline.rs", "error.rs", "request.rs", "stats.rs"];
    let at_the_edge = at_the_edge.map(|file| library.join(file));
    // The machine's times become instants here, on the way to the user.
    let converts = ["commands.rs", "deadline.rs", "inner.rs"].map(|file| library.join(file));
    for (path, text) in sources(&library) {
        let text = without_tests(&text);
        let in_clock = path.starts_with(library.join("clock"));
        let has_instants = text.contains("Instant");
        assert!(!has_instants || in_clock || at_the_edge.contains(&path), "{}", path.display());
        let converted = text.contains("to_instant") && !converts.contains(&path);
        assert!(!converted || path.ends_with("timeline.rs"), "{}", path.display());
    }
}

#[test]
fn in_the_library_observers_do_not_know_the_limiter() {
    for (path, text) in sources(&crates().join("limiter/src/observe")) {
        for word in ["crate::inner", "crate::limiter", "crate::clock", "Machine"] {
            assert!(!text.contains(word), "{} in {}", word, path.display());
        }
    }
}

#[test]
fn in_the_library_only_the_tick_counter_needs_unsafe_code() {
    for (path, text) in sources(&crates().join("limiter/src")) {
        assert!(!text.contains("unsafe {") || path.ends_with("tsc.rs"), "{}", path.display());
    }
}

#[test]
fn in_the_python_package_only_its_clock_reads_a_clock() {
    for (path, text) in sources(&python()) {
        // Nor the loop's, by its `time` method.
        let reads = ["Instant::now", "SystemTime::now", ".elapsed()", "py, \"time\""];
        let reads = reads.iter().any(|word| text.contains(word));
        assert!(!reads || path.ends_with("clock.rs"), "{}", path.display());
    }
}

#[test]
fn in_the_python_package_only_ffi_needs_unsafe_code() {
    for (path, text) in sources(&python()) {
        let unsafe_code = text.contains("unsafe") || text.contains("pyo3::ffi");
        assert!(!unsafe_code || path.starts_with(python().join("ffi")), "{}", path.display());
    }
}

/// `lib.rs` lists the modules from the lowest to the highest.
#[test]
fn in_the_python_package_modules_use_only_modules_below_them() {
    let root = fs::read_to_string(python().join("lib.rs")).unwrap();
    let modules = root.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let modules: Vec<&str> = modules.collect();
    assert!(modules.len() > 10, "{modules:?}");
    let rank = |name: &str| modules.iter().position(|module| *module == name);
    for (path, text) in sources(&python()) {
        let path = path.strip_prefix(python()).unwrap();
        let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
        let Some(own) = rank(first.trim_end_matches(".rs")) else { continue };
        for used in text.split("crate::").skip(1) {
            let used = used.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let used = used.into_iter().next().unwrap();
            let used_rank = rank(used).unwrap_or_else(|| panic!("{used} in {}", path.display()));
            assert!(used_rank <= own, "{} uses {used}", path.display());
        }
    }
}

#[test]
fn the_python_package_knows_only_core_and_hints() {
    for (path, text) in sources(&python()) {
        let knows_more = text.contains("strict_rate_limiter::") || text.contains("tokio");
        assert!(!knows_more, "{} goes past core and hints", path.display());
    }
}

#[test]
fn core_knows_no_clock_no_thread_no_waking_and_no_other_crate() {
    for (path, text) in sources(&crates().join("core/src")) {
        for word in ["std::", "Instant", "SystemTime", "Waker", "Mutex", "Atomic"] {
            assert!(!text.contains(word), "{} in {}", word, path.display());
        }
    }
    let manifest = fs::read_to_string(crates().join("core/Cargo.toml")).unwrap();
    assert!(!manifest.contains("[dependencies]"));
}

#[test]
fn in_the_shared_crate_only_its_clock_reads_a_clock_and_the_folder_knows_no_library() {
    let shared = crates().join("shared/src");
    for (path, text) in sources(&shared) {
        let reads = ["Instant::now", "SystemTime::now", ".elapsed()", "clock_gettime"];
        let reads = reads.iter().any(|word| text.contains(word));
        assert!(!reads || path.ends_with("folder/clock.rs"), "{}", path.display());
        let is_in_folder = path.starts_with(shared.join("folder"));
        let knows = text.contains("strict_rate_limiter::") || text.contains("Waker");
        assert!(!(is_in_folder && knows), "{}", path.display());
    }
}

#[test]
fn hints_knows_no_client_and_no_clock() {
    for (path, text) in sources(&crates().join("hints/src")) {
        // The tests at the ends of the files have times, but do not ask for one.
        for word in ["Instant", "SystemTime::now", "reqwest", "http::", "hyper", "unsafe"] {
            assert!(!text.contains(word), "{} in {}", word, path.display());
        }
    }
}

#[test]
fn the_command_decides_no_rule_of_its_own() {
    for (path, text) in sources(&crates().join("cli/src")) {
        let uses_core = text.contains("strict_rate_limiter_core");
        assert!(!uses_core, "{} goes past the library", path.display());
    }
}
