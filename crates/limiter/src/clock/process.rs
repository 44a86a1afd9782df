//! Which process this is: after a `fork`, the threads of the one before are not in it.

/// A number that a child of a `fork` does not share with its parent.
pub(super) fn id() -> u32 {
    // Elsewhere no process is copied, and asking may panic.
    if cfg!(unix) { std::process::id() } else { 0 }
}
