//! The command's log, of any bytes at all: an error that names the line, or rows; and what is whole of
//! it reads the same when the rest is cut off.

#![no_main]
// The command's own files, of which only the reading is used here.
#![allow(dead_code)]

#[path = "../../crates/cli/src/csv_state.rs"]
mod csv_state;
#[path = "../../crates/cli/src/error.rs"]
mod error;
#[path = "../../crates/cli/src/history.rs"]
mod history;
#[path = "../../crates/cli/src/tail_reader.rs"]
mod tail_reader;

use libfuzzer_sys::fuzz_target;
use history::History;

fuzz_target!(|bytes: &[u8]| {
    // Most of what could be read begins with the header.
    let log = [b"seq,start_ns,end_ns,weight,exit_code,input\n", bytes].concat();
    for log in [&log[..], bytes] {
        match History::read(log) {
            // A part of a header tells that a run began, and is cut off whole.
            Ok((_, 0)) => {}
            Ok((history, whole)) => {
                let cut_off = &log[..whole as usize];
                assert_eq!(History::read(cut_off).ok(), Some((history, whole)));
            }
            Err(error) => assert!(error.to_string().contains("line "), "{error}"),
        }
    }
});
