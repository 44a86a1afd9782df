//! What is deliberately absent from each room of the house, held by reading the code.

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
            // What stands in comments and examples is not part of the house.
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

#[test]
fn in_the_library_only_the_clock_module_reads_a_clock() {
    let library = crates().join("limiter/src");
    for (path, text) in sources(&library) {
        let reads = text.contains("Instant::now") || text.contains("SystemTime::now");
        assert!(!reads || path.starts_with(library.join("clock")), "{}", path.display());
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
fn in_the_python_package_only_what_is_made_by_hand_needs_unsafe_code() {
    for (path, text) in sources(&python()) {
        let unsafe_code = text.contains("unsafe") || text.contains("pyo3::ffi");
        assert!(!unsafe_code || path.starts_with(python().join("raw")), "{}", path.display());
    }
}

#[test]
fn the_python_package_knows_only_core() {
    for (path, text) in sources(&python()) {
        let knows_more = text.contains("strict_rate_limiter::") || text.contains("tokio");
        assert!(!knows_more, "{} goes past core", path.display());
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
fn what_reads_answers_knows_no_client_and_no_clock() {
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
