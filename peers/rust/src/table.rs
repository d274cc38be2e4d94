//! A peer's id table, and what it means for our own types. docs/wire.md, section 6.

use std::collections::HashMap;

use crate::control::TypeRow;
use crate::error::{Fault, GoodbyeCode};
use crate::types::{Kind, Registry, Row};
use crate::wire::limits::{NAME_TEXT_BYTES, TABLE_BYTES, TABLE_ROW_BYTES, TABLE_STRUCTS};

struct Entry {
    wire_id: u16,
    kind: Kind,
    name: String,
    layout: Vec<u32>,
}

#[derive(Default)]
pub(crate) struct PeerTable {
    entries: HashMap<u64, Entry>,
    by_wire_id: HashMap<u16, u64>,
    bytes: usize,
    structs: usize,
    /// Found when needed, forgotten when rows arrive.
    verdicts: HashMap<u64, Verdict>,
}

/// Whether a type of ours may pass between the two endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Compatible,
    /// What differs, for people.
    Disabled(String),
}

impl PeerTable {
    /// Adds rows in their order; a violation of section 6.1 is `invalidTable`. True: a row matters to our own types, so
    /// verdicts may have changed.
    pub fn add(&mut self, rows: Vec<TypeRow>, registry: &Registry) -> Result<bool, Fault> {
        let mut matters = false;
        for row in rows {
            let known = registry.row(row.type_id).is_some();
            matters |= self.add_row(row)? && known;
        }
        if matters {
            self.verdicts.clear();
        }
        Ok(matters)
    }

    /// True: the type id is new.
    fn add_row(&mut self, row: TypeRow) -> Result<bool, Fault> {
        let TypeRow { wire_id, kind, type_id, name, layout } = row;
        let invalid = |problem: String| {
            let text = format!("row of type id {type_id:#018x} with wire id {wire_id}: {problem}");
            Fault::new(GoodbyeCode::InvalidTable, text)
        };
        let kind = match kind {
            0 => Kind::Struct,
            1 => Kind::Opaque,
            other => return Err(invalid(format!("kind {other} is not known"))),
        };
        if type_id == 0 {
            return Err(invalid("a type id is not 0".to_owned()));
        }
        if name.len() > NAME_TEXT_BYTES {
            return Err(invalid(format!("a name of {} bytes; the limit is {NAME_TEXT_BYTES}", name.len())));
        }
        if kind == Kind::Opaque && !layout.is_empty() {
            return Err(invalid("an opaque type with a layout".to_owned()));
        }
        if let Some(&holder) = self.by_wire_id.get(&wire_id) {
            if holder != type_id {
                return Err(invalid(format!("the wire id stands for {holder:#018x}")));
            }
        }
        match self.entries.get_mut(&type_id) {
            Some(entry) => {
                if entry.kind != kind || entry.name != name || entry.layout != layout {
                    return Err(invalid("differs from the row that came earlier".to_owned()));
                }
                if wire_id != 0 && entry.wire_id != wire_id {
                    if entry.wire_id != 0 {
                        return Err(invalid(format!("the type has wire id {}", entry.wire_id)));
                    }
                    entry.wire_id = wire_id;
                    self.by_wire_id.insert(wire_id, type_id);
                }
                Ok(false)
            }
            None => {
                self.bytes += TABLE_ROW_BYTES + name.len() + 4 * layout.len();
                if self.bytes > TABLE_BYTES {
                    return Err(invalid(format!("the table takes {} bytes; the limit is {TABLE_BYTES}", self.bytes)));
                }
                if wire_id == 0 {
                    self.structs += 1;
                    if self.structs > TABLE_STRUCTS {
                        return Err(invalid(format!("more than {TABLE_STRUCTS} structs without a wire id")));
                    }
                } else {
                    self.by_wire_id.insert(wire_id, type_id);
                }
                self.entries.insert(type_id, Entry { wire_id, kind, name, layout });
                Ok(true)
            }
        }
    }

    /// The type id behind a wire id.
    pub fn type_id(&self, wire_id: u16) -> Option<u64> {
        self.by_wire_id.get(&wire_id).copied()
    }

    pub fn has_wire_id(&self, type_id: u64) -> bool {
        self.entries.get(&type_id).is_some_and(|entry| entry.wire_id != 0)
    }

    pub fn name(&self, type_id: u64) -> &str {
        self.entries.get(&type_id).map_or("", |entry| &entry.name)
    }

    /// Compares a type of ours, and every struct that it reaches, with what the peer has declared of them.
    pub fn verdict(&mut self, row: &Row, registry: &Registry) -> &Verdict {
        if !self.verdicts.contains_key(&row.type_id) {
            let verdict = self.judge(row, registry);
            self.verdicts.insert(row.type_id, verdict);
        }
        &self.verdicts[&row.type_id]
    }

    pub fn is_compatible(&mut self, row: &Row, registry: &Registry) -> bool {
        *self.verdict(row, registry) == Verdict::Compatible
    }

    fn judge(&self, row: &Row, registry: &Registry) -> Verdict {
        let reached = row.reaches.iter().filter_map(|&id| registry.row(id));
        for ours in std::iter::once(row).chain(reached) {
            let Some(theirs) = self.entries.get(&ours.type_id) else {
                continue;
            };
            if theirs.kind != ours.kind {
                return Verdict::Disabled(format!(
                    "{} is {:?} here and {:?} at the peer",
                    ours.name, ours.kind, theirs.kind
                ));
            }
            let differs = ours.layout.iter().zip(&theirs.layout).position(|(a, b)| a != b);
            if let Some(ordinal) = differs {
                return Verdict::Disabled(format!(
                    "field @{ordinal} of {} is laid out otherwise in the peer's {}",
                    ours.name, theirs.name
                ));
            }
        }
        Verdict::Compatible
    }
}
