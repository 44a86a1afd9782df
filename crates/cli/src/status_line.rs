//! What a person sees on standard error: messages, and on a terminal a line at the bottom that moves.
//!
//! The line is only there while nobody but us writes to the terminal: before anything else is written it
//! is cleared, and a command that has the terminal to itself has it without the line.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IsTerminal};

use rustix::stdio::stderr;
use rustix::termios::tcgetwinsize;

use crate::stdio;

/// The width of a terminal that does not say how wide it is.
const WIDTH: usize = 80;

/// Whether a run that is not quiet draws on the terminal.
pub(crate) fn is_drawn(quiet: bool) -> bool {
    !quiet
        && io::stderr().is_terminal()
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[derive(Debug)]
pub(crate) struct StatusLine {
    drawn: bool,
    /// The line, while it is there.
    line: RefCell<Option<String>>,
    /// Whether something was written since that may not have ended its line.
    written: Cell<bool>,
    /// How many have the terminal to themselves.
    hidden: Cell<usize>,
}

/// That somebody else has the terminal, until this is dropped.
#[derive(Debug)]
pub(crate) struct Hidden<'a>(&'a StatusLine);

impl StatusLine {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            drawn: is_drawn(quiet),
            line: RefCell::default(),
            written: Cell::new(false),
            hidden: Cell::new(0),
        }
    }

    pub(crate) fn is_drawn(&self) -> bool {
        self.drawn
    }

    /// Draws the line, given how many columns there are for it.
    pub(crate) fn draw(&self, line: impl FnOnce(usize) -> String) {
        if self.drawn && self.hidden.get() == 0 {
            let width = width();
            // One column is left free: where the last is written to, some terminals begin a new line.
            let line: String = line(width - 1).chars().take(width - 1).collect();
            stdio::write_message(&format!("{}\r{line}\x1b[K", self.fresh_line(width)));
            self.line.replace(Some(line));
        }
    }

    pub(crate) fn clear(&self) {
        if self.line.take().is_some() {
            stdio::write_message("\r\x1b[K");
        }
    }

    /// Tells something, on a line of its own.
    pub(crate) fn tell(&self, message: impl fmt::Display) {
        self.tell_whole(&format!("ratelimit: {message}\n"));
    }

    /// Tells what is whole lines already.
    pub(crate) fn tell_whole(&self, text: &str) {
        let line = self.line.take();
        let begin = if line.is_some() { "\r\x1b[K" } else { &self.fresh_line(width()) };
        stdio::write_message(&format!("{begin}{text}"));
        if let Some(line) = line {
            self.draw(|_| line);
        }
    }

    /// Does something that writes to the terminal, without the line.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        let line = self.line.borrow().clone();
        let written = {
            let _hidden = self.hide();
            write()
        };
        if let Some(line) = line {
            self.draw(|_| line);
        }
        written
    }

    /// Leaves the terminal to somebody else.
    pub(crate) fn hide(&self) -> Hidden<'_> {
        self.clear();
        self.hidden.set(self.hidden.get() + 1);
        Hidden(self)
    }

    /// What moves the cursor to the begin of a line, once where it may be anywhere: as many blanks as
    /// there are columns go on to the next line, unless they begin where a line does.
    fn fresh_line(&self, width: usize) -> String {
        if self.written.take() { format!("{:width$}\r", "") } else { String::new() }
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        self.0.hidden.set(self.0.hidden.get() - 1);
        self.0.written.set(self.0.drawn);
    }
}

fn width() -> usize {
    let said = tcgetwinsize(stderr()).map_or(0, |size| usize::from(size.ws_col));
    if said < 2 { WIDTH } else { said }
}
