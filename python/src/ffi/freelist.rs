//! Memory of awaitables that have ended, for the next ones: a push lives for a few hundred nanoseconds.
//!
//! It relies on the interpreter's lock alone.

use std::cell::UnsafeCell;
use std::ptr;

use pyo3::ffi;

/// A few places, and how many of them are filled.
pub(super) struct FreeList(UnsafeCell<[*mut ffi::PyObject; PLACES]>, UnsafeCell<usize>);

const PLACES: usize = 16;

pub(super) static FREE_LIST: FreeList =
    FreeList(UnsafeCell::new([ptr::null_mut(); PLACES]), UnsafeCell::new(0));

// SAFETY: it is only touched under the interpreter's lock.
unsafe impl Sync for FreeList {}

impl FreeList {
    /// # Safety
    ///
    /// The interpreter's lock is held.
    #[inline]
    pub(super) unsafe fn take(&self) -> Option<*mut ffi::PyObject> {
        // SAFETY: nobody else is in here; the first `len` places are filled.
        unsafe {
            let len = &mut *self.1.get();
            *len = len.checked_sub(1)?;
            Some((*self.0.get())[*len])
        }
    }

    /// Whether there is room for it.
    ///
    /// # Safety
    ///
    /// The interpreter's lock is held, and the object has ended but for its memory.
    #[inline]
    pub(super) unsafe fn keep(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: nobody else is in here.
        unsafe {
            let len = &mut *self.1.get();
            let place = (*self.0.get()).get_mut(*len);
            place.is_some_and(|place| {
                *place = object;
                *len += 1;
                true
            })
        }
    }
}
