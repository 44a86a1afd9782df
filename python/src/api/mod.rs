//! What Python sees: arguments in, answers and exceptions out. It decides nothing.

pub(crate) mod control;
pub(crate) mod hints;
pub(crate) mod limiter;
pub(crate) mod permit;
pub(crate) mod push;
pub(crate) mod stats;
pub(crate) mod weighted;
