//! What every implementation's conformance program can do: run the vectors, and be a peer that a test drives.

#![forbid(unsafe_code)]

/// Generated from tests/vectors/conformance.capnp by `make generate`.
#[rustfmt::skip]
#[allow(clippy::all)]
#[path = "generated/conformance_capnp.rs"]
pub mod conformance_capnp;
#[path = "generated/table.rs"]
pub mod table;

pub mod peer;
pub mod types;
pub mod values;
pub mod vectors;

use lahja_capn::Row;

/// The rows of all types but `Late`, which is declared when it is first needed; and that of `Late`.
pub fn rows() -> (Vec<Row>, Vec<Row>) {
    lahja_capn::rows!(crate::table).into_iter().partition(|row| row.type_id != table::LATE_ROW.type_id)
}
