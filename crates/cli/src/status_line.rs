//! Writes messages to standard error and, on a terminal, redraws a status line below them.
//!
//! The line is cleared before any other output, and hidden while a command may write to the terminal.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IsTerminal};

use rustix::stdio::stderr;
use rustix::termios::tcgetwinsize;

use crate::stdio;

/// The width of a terminal that does not report one.
const WIDTH: usize = 80;

/// Whether to draw a status line or progress bar.
pub(crate) fn is_drawn(quiet: bool) -> bool {
    !quiet
        && io::stderr().is_terminal()
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[derive(Debug)]
pub(crate) struct StatusLine {
    drawn: bool,
    /// The line, while it is drawn.
    line: RefCell<Option<String>>,
    /// Whether a command may have left the cursor within a line.
    written: Cell<bool>,
    /// The number of [`Hidden`] guards.
    hidden: Cell<usize>,
}

/// Keeps the line hidden until it is dropped.
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

    /// Draws the line. The closure gets the number of columns.
    pub(crate) fn draw(&self, line: impl FnOnce(usize) -> String) {
        if self.drawn && self.hidden.get() == 0 {
            let width = width();
            // Leave the last column free: writing to it wraps on some terminals.
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

    /// Writes a message, on a line of its own.
    pub(crate) fn tell(&self, message: impl fmt::Display) {
        self.tell_whole(&format!("ratelimit: {message}\n"));
    }

    /// Writes a text of whole lines.
    pub(crate) fn tell_whole(&self, text: &str) {
        let line = self.line.take();
        let begin = if line.is_some() { "\r\x1b[K" } else { &self.fresh_line(width()) };
        stdio::write_message(&format!("{begin}{text}"));
        if let Some(line) = line {
            self.draw(|_| line);
        }
    }

    /// Hides the line while the closure writes to the terminal, then draws it again.
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

    /// Hides the line while a command may write to the terminal.
    pub(crate) fn hide(&self) -> Hidden<'_> {
        self.clear();
        self.hidden.set(self.hidden.get() + 1);
        Hidden(self)
    }

    /// Text that moves the cursor to the beginning of a line if a command may have left it elsewhere: `width` blanks
    /// wrap to the next line, unless they start at the beginning of one.
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
