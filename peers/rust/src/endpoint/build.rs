//! Making an endpoint.

use std::io::Read;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::{Endpoint, Handle, Shared};
use crate::error::ConfigError;
use crate::hub::Hub;
use crate::session::{is_valid_name, Local};
use crate::types::{Registry, Row};
use crate::wire::limits::{Limits, MAX_CREDIT, MAX_FRAME_BYTES, MIN_FRAME_LIMIT_BYTES, UNLIMITED};

/// See [`Endpoint::builder`].
pub struct Builder {
    name: String,
    instance: Option<[u8; 16]>,
    limits: Limits,
    rows: Vec<(Row, bool)>,
}

impl Builder {
    pub(super) fn new(name: String) -> Builder {
        Builder { name, instance: None, limits: Limits::default(), rows: Vec::new() }
    }

    /// Types to know, and to declare in every hello. `rows!(table)` gives those that `lahja-capn table` printed.
    pub fn types(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.rows.extend(rows.into_iter().map(|row| (row, true)));
        self
    }

    /// Types to know, and to declare when they are first needed.
    pub fn types_when_needed(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.rows.extend(rows.into_iter().map(|row| (row, false)));
        self
    }

    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The 16 bytes that tell this start of the endpoint from others; random unless given.
    pub fn instance(mut self, instance: [u8; 16]) -> Self {
        self.instance = Some(instance);
        self
    }

    pub fn build(self) -> Result<Endpoint, ConfigError> {
        let Builder { name, instance, limits, rows } = self;
        if !is_valid_name(&name) {
            return Err(ConfigError::Name { name });
        }
        check(&limits)?;
        let mut registry = Registry::default();
        let mut at_once = Vec::new();
        for (row, declare) in rows {
            if declare && row.is_event {
                at_once.push(row.type_id);
            }
            registry.add(row)?;
        }
        for type_id in at_once {
            registry.declare(type_id).map_err(|error| {
                let name = registry.row(type_id).map_or_else(String::new, |row| row.name.clone());
                ConfigError::Row { type_id, name, problem: error.to_string() }
            })?;
        }
        let instance = match instance {
            Some(instance) => instance,
            None => random().map_err(ConfigError::Random)?,
        };
        let changed = Arc::new(Notify::new());
        let hub = Hub::new(Local { name, instance, limits }, registry, Arc::clone(&changed));
        let shared = Arc::new(Shared { hub: Mutex::new(hub), changed, stop: Notify::new() });
        Ok(Endpoint { handle: Arc::new(Handle { shared }) })
    }
}

fn check(limits: &Limits) -> Result<(), ConfigError> {
    let frames = u64::from(MIN_FRAME_LIMIT_BYTES)..=u64::from(MAX_FRAME_BYTES);
    if !frames.contains(&u64::from(limits.frame_bytes)) {
        let value = u64::from(limits.frame_bytes);
        return Err(ConfigError::Limit { field: "frame_bytes", value, wanted: "1,024 to 2^31 - 8" });
    }
    for (field, value) in
        [("event_credit_bytes", limits.event_credit_bytes), ("request_credit_bytes", limits.request_credit_bytes)]
    {
        if value > MAX_CREDIT && value != UNLIMITED {
            return Err(ConfigError::Limit { field, value, wanted: "at most 2^63 - 1, or 2^64 - 1 for no limit" });
        }
    }
    if limits.keepalive_misses < 2 {
        // Fewer would take a peer for dead that was never asked.
        let value = u64::from(limits.keepalive_misses);
        return Err(ConfigError::Limit { field: "keepalive_misses", value, wanted: "at least 2" });
    }
    Ok(())
}

fn random() -> std::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
