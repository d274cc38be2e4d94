//! The types of conformance.capnp by name.

use capnp::dynamic_value;
use capnp::message::Reader;
use lahja_capn::wire::Frame;
use lahja_capn::{wire_capnp, Content, Event, EventStruct};
use serde_json::Value;

use crate::conformance_capnp as schema;
use crate::values::{self, Error};

/// A struct that can be built from JSON, and read to it.
pub struct Type {
    pub name: &'static str,
    pub type_id: u64,
    build: fn(&Value) -> Result<Content, Error>,
    show: fn(&Reader<Frame>) -> Result<Value, Error>,
}

macro_rules! types {
    ($($name:literal $module:path,)*) => {
        &[$({
            use $module as module;
            Type {
                name: $name,
                type_id: <module::Owned as EventStruct>::TYPE_ID,
                build: |value| {
                    let mut message = capnp::message::Builder::new_default();
                    let root: dynamic_value::Builder<'_> = message.init_root::<module::Builder<'_>>().into();
                    values::fill(root.downcast(), value)?;
                    Ok(Content::from_message(<module::Owned as EventStruct>::TYPE_ID, &message))
                },
                show: |reader| {
                    let root: module::Reader<'_> = reader.get_root()?;
                    values::show_value(root.into())
                },
            }
        },)*]
    };
}

/// The event types of conformance.capnp.
pub static TYPES: &[Type] = types![
    "Inner" schema::inner,
    "Everything" schema::everything,
    "Count" schema::count,
    "Blob" schema::blob,
    "Late" schema::late,
    "Evolving" schema::evolving,
    "Ask" schema::ask,
    "Answer" schema::answer,
];

/// Structs of wire.capnp that vectors show.
pub static WIRE_TYPES: &[Type] = types![
    "Control" wire_capnp::control,
    "Opaque" wire_capnp::opaque,
];

impl Type {
    pub fn named(name: &str) -> Result<&'static Type, Error> {
        TYPES.iter().find(|kind| kind.name == name).ok_or_else(|| Error::Value(format!("no type is named {name:?}")))
    }

    pub fn of_wire(name: &str) -> Result<&'static Type, Error> {
        let found = WIRE_TYPES.iter().find(|kind| kind.name == name);
        found.ok_or_else(|| Error::Value(format!("wire.capnp has no type named {name:?}")))
    }

    pub fn with_id(type_id: u64) -> Option<&'static Type> {
        TYPES.iter().find(|kind| kind.type_id == type_id)
    }

    pub fn build(&self, value: &Value) -> Result<Content, Error> {
        (self.build)(value)
    }

    pub fn show(&self, reader: &Reader<Frame>) -> Result<Value, Error> {
        (self.show)(reader)
    }

    /// Name and value of a received event.
    pub fn show_event(event: &Event) -> (&'static str, Result<Value, Error>) {
        match Type::with_id(event.type_id()) {
            Some(kind) => (kind.name, kind.show(&event.reader())),
            None => ("", Err(Error::Value(format!("no type has id {:#018x}", event.type_id())))),
        }
    }
}
