//! One strict limit for every process of a machine. A folder holds the state; no server is needed.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub mod folder;
#[cfg(feature = "limiter")]
mod limiter;

pub use folder::FolderError;
#[cfg(feature = "limiter")]
pub use limiter::{SharedRateLimiter, SharedRateLimiterBuilder};
