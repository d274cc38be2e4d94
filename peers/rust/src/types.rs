//! Event types as this program knows them: the rows of its own id table.

use std::collections::{HashMap, HashSet};

use capnp::traits::{HasTypeId, Owned};

use crate::error::{ConfigError, SendError};
use crate::wire::limits::NAME_TEXT_BYTES;

/// A generated struct that can be an event: `tick::Owned`.
///
/// Implemented for every struct that `capnpc` generates; not to be implemented by hand.
pub trait EventStruct: Owned + 'static {
    /// The type id: the struct's identity everywhere.
    const TYPE_ID: u64;
}

impl<T> EventStruct for T
where
    T: Owned + 'static,
    <T as Owned>::Reader<'static>: HasTypeId,
{
    const TYPE_ID: u64 = <<T as Owned>::Reader<'static> as HasTypeId>::TYPE_ID;
}

/// The type id of a generated struct: `type_id::<tick::Owned>()`.
pub const fn type_id<T: EventStruct>() -> u64 {
    T::TYPE_ID
}

/// What the message of a type holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The root is the struct with the row's type id.
    Struct,
    /// The root is `Opaque`: bytes that mean something only to whoever knows the type id.
    Opaque,
}

/// One event type, or a struct that is reachable from one. `lahja-capn table FILE.capnp --language rust` prints them as
/// constants; [`rows!`](crate::rows) takes those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub type_id: u64,
    pub kind: Kind,
    /// For messages to people; never compared.
    pub name: String,
    /// One hash per field, docs/wire.md 6.2. Empty: other endpoints cannot check whether they agree.
    pub layout: Vec<u32>,
    /// Type ids of the structs that are reachable from it.
    pub reaches: Vec<u64>,
    /// False: only reachable from event types.
    pub is_event: bool,
}

impl Row {
    /// A type without a layout: it works, but nobody can check whether both sides mean the same struct.
    pub fn unchecked(type_id: u64, name: impl Into<String>) -> Row {
        Row { type_id, kind: Kind::Struct, name: name.into(), layout: Vec::new(), reaches: Vec::new(), is_event: true }
    }

    /// A type that serializes itself.
    pub fn opaque(type_id: u64, name: impl Into<String>) -> Row {
        Row { kind: Kind::Opaque, ..Row::unchecked(type_id, name) }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let problem = if self.type_id == 0 {
            "a type id is not 0".to_owned()
        } else if self.name.len() > NAME_TEXT_BYTES {
            format!("its name has {} bytes; the limit is {NAME_TEXT_BYTES}", self.name.len())
        } else if self.kind == Kind::Opaque && !self.layout.is_empty() {
            "an opaque type has no layout".to_owned()
        } else {
            return Ok(());
        };
        Err(ConfigError::Row { type_id: self.type_id, name: self.name.clone(), problem })
    }
}

/// The rows of a module that `lahja-capn table … --language rust` printed: `rows!(table)`.
#[macro_export]
macro_rules! rows {
    ($module:path) => {{
        use $module as table;
        table::ROWS
            .iter()
            .map(|row| $crate::Row {
                type_id: row.type_id,
                kind: if row.kind as u16 == 1 { $crate::Kind::Opaque } else { $crate::Kind::Struct },
                name: row.name.to_owned(),
                layout: row.layout.to_vec(),
                reaches: row.reaches.to_vec(),
                is_event: row.wire_id != 0,
            })
            .collect::<::std::vec::Vec<$crate::Row>>()
    }};
}

/// All types this endpoint knows, and which of them it has declared, in what order, under which wire id.
#[derive(Default)]
pub(crate) struct Registry {
    rows: HashMap<u64, Row>,
    /// What goes into hello and declare, one after the other. A struct may be here twice: first with wire id 0.
    declared: Vec<(u16, u64)>,
    declared_ids: HashSet<u64>,
    wire_ids: HashMap<u64, u16>,
}

impl Registry {
    pub fn add(&mut self, row: Row) -> Result<(), ConfigError> {
        row.check()?;
        match self.rows.get_mut(&row.type_id) {
            None => {
                self.rows.insert(row.type_id, row);
                Ok(())
            }
            Some(known) if known.kind == row.kind && known.name == row.name && known.layout == row.layout => {
                // Two schema files may reach one struct, and only one of them have it as an event.
                known.is_event |= row.is_event;
                for id in row.reaches {
                    if !known.reaches.contains(&id) {
                        known.reaches.push(id);
                    }
                }
                Ok(())
            }
            Some(known) => Err(ConfigError::Row {
                type_id: row.type_id,
                problem: format!("differs from the row known as {:?}; one type id stands for one type", known.name),
                name: row.name,
            }),
        }
    }

    pub fn row(&self, type_id: u64) -> Option<&Row> {
        self.rows.get(&type_id)
    }

    /// An event type that is known here.
    pub fn event(&self, type_id: u64) -> Option<&Row> {
        self.rows.get(&type_id).filter(|row| row.is_event)
    }

    pub fn events(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().filter(|row| row.is_event)
    }

    pub fn wire_id(&self, type_id: u64) -> Option<u16> {
        self.wire_ids.get(&type_id).copied()
    }

    /// Gives the type a wire id, unless it has one. The sessions then send the new rows.
    pub fn declare(&mut self, type_id: u64) -> Result<u16, SendError> {
        if let Some(wire_id) = self.wire_id(type_id) {
            return Ok(wire_id);
        }
        let row = self.rows.get(&type_id).filter(|row| row.is_event).ok_or(SendError::UnknownType { type_id })?;
        let wire_id =
            u16::try_from(self.wire_ids.len() + 1).map_err(|_| SendError::TableFull { name: row.name.clone() })?;
        // Rows of what it reaches go first; a receiver can then judge the type when it gets its number.
        for &id in &row.reaches {
            if self.rows.contains_key(&id) && self.declared_ids.insert(id) {
                self.declared.push((0, id));
            }
        }
        self.declared_ids.insert(type_id);
        self.declared.push((wire_id, type_id));
        self.wire_ids.insert(type_id, wire_id);
        Ok(wire_id)
    }

    /// Rows from position `from` on, with their wire ids.
    pub fn declared_from(&self, from: usize) -> impl Iterator<Item = (u16, &Row)> {
        self.declared[from.min(self.declared.len())..].iter().map(|&(wire_id, id)| (wire_id, &self.rows[&id]))
    }

    pub fn declared_count(&self) -> usize {
        self.declared.len()
    }
}
