//! The command's log, from any bytes: reading it gives an error that names the line, or whole rows, which read the same
//! after the rest is cut off.

#![no_main]
// The command's own files. Only their reading code is used here.
#![allow(dead_code)]

#[path = "../../crates/cli/src/csv_state.rs"]
mod csv_state;
#[path = "../../crates/cli/src/error.rs"]
mod error;
#[path = "../../crates/cli/src/history.rs"]
mod history;
#[path = "../../crates/cli/src/tail_reader.rs"]
mod tail_reader;

use history::History;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Try the input also behind a header, since it is rarely a log without one.
    let log = [b"seq,start_ns,end_ns,weight,exit_code,input\n", bytes].concat();
    for log in [&log[..], bytes] {
        match History::read(log) {
            // A part of a header means that a run began. All of it is cut off.
            Ok((_, 0)) => {}
            Ok((history, whole)) => {
                let cut_off = &log[..whole as usize];
                assert_eq!(History::read(cut_off).ok(), Some((history, whole)));
            }
            Err(error) => assert!(error.to_string().contains("line "), "{error}"),
        }
    }
});
