//! A list of wakers that are woken after the lock is released.

use std::task::Waker;

use crate::foreign::{self, FirstPanic};

/// Wakers that are woken after the lock is released. Nearly always one or none.
///
/// Each is woken even if others panic. Dropping the list wakes those that are left.
#[derive(Default)]
pub(crate) struct WakeList {
    first: Option<Waker>,
    rest: Vec<Waker>,
}

impl WakeList {
    pub(crate) fn push(&mut self, waker: Waker) {
        match &self.first {
            None => self.first = Some(waker),
            Some(_) => self.rest.push(waker),
        }
    }

    pub(crate) fn extend(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        wakers.into_iter().for_each(|waker| self.push(waker));
    }

    /// Wakes all of them. Call it after the lock is released.
    pub(crate) fn wake(&mut self, panics: &mut FirstPanic) {
        if let Some(first) = self.first.take() {
            panics.note(foreign::call(|| first.wake()));
        }
        for waker in self.rest.drain(..) {
            panics.note(foreign::call(|| waker.wake()));
        }
    }
}

impl Drop for WakeList {
    fn drop(&mut self) {
        let mut panics = FirstPanic::default();
        self.wake(&mut panics);
        panics.discard();
    }
}
