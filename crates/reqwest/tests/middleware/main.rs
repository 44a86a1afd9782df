//! The middleware, against servers on loopback. One program, so that it is linked once.

mod bodies;
mod counts;
mod pauses;
mod redirects;
mod requests;
mod support;
