//! A peer of the lahja_capn event bus: typed events, requests and responses between processes, in the wire format of
//! `docs/wire.md`, whose messages are Cap'n Proto.
//!
//! Layers, each knowing only those before it: `wire` (frames), `control`, `table` and `credit` (what frames say),
//! `session` (one connection as a value, without IO), `hub` (an endpoint's state, without IO), [`Endpoint`] (tokio).

#![forbid(unsafe_code)]

mod content;
mod control;
mod credit;
mod endpoint;
mod error;
mod hub;
mod session;
mod table;
mod types;
pub mod wire;

/// Generated from wire.capnp; checked in, so that users need no compiler. `make generate` writes it.
#[rustfmt::skip]
#[allow(clippy::all, missing_docs)]
#[path = "generated/wire_capnp.rs"]
pub mod wire_capnp;

pub use content::{Content, Event, Reply};
pub use endpoint::{Acknowledgement, Builder, Endpoint, Handling, Notices, Request, Requests, Serving, Subscription};
pub use error::{
    ConfigError, ConnectError, Ending, FailedCode, Failure, Fault, GoodbyeCode, ReadError, RequestError, SendError,
};
pub use hub::Notice;
pub use session::Counters;
pub use types::{type_id, EventStruct, Kind, Row};
/// The examples of README.md, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use wire::limits::{Limits, UNLIMITED};
