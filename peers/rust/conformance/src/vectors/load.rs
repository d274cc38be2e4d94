//! Reads vectors from their files.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::Failed;
use crate::values::from_hex;

pub struct Vector {
    pub folder: String,
    pub name: String,
    pub facts: Value,
    pub data: Vec<u8>,
}

impl Vector {
    pub fn text(&self, key: &str) -> &str {
        self.facts.get(key).and_then(Value::as_str).unwrap_or("")
    }
}

/// All vectors of a folder, by name.
pub fn all(root: &Path, folder: &str) -> Result<Vec<Vector>, Failed> {
    let path = root.join(folder);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let file = entry.map_err(failed)?.file_name();
        if let Some(name) = file.to_str().and_then(|name| name.strip_suffix(".json")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names.into_iter().map(|name| load(root, folder, name)).collect()
}

fn load(root: &Path, folder: &str, name: String) -> Result<Vector, Failed> {
    let path = root.join(folder).join(format!("{name}.json"));
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read(&path).map_err(|error| failed(&error))?;
    let facts: Value = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    let data = match facts.get("recipe").and_then(Value::as_array) {
        Some(parts) => {
            let parts: Option<Vec<Vec<u8>>> = parts.iter().map(part).collect();
            parts.ok_or_else(|| failed(&"bad recipe"))?.concat()
        }
        None if folder == "values" => Vec::new(),
        None => fs::read(path.with_extension("bin")).map_err(|error| failed(&error))?,
    };
    Ok(Vector { folder: folder.to_owned(), name, facts: expanded(facts), data })
}

fn part(part: &Value) -> Option<Vec<u8>> {
    match part.get("hex") {
        Some(hex) => from_hex(hex.as_str()?),
        None => Some(from_hex(part.get("repeat")?.as_str()?)?.repeat(part.get("times")?.as_u64()? as usize)),
    }
}

/// Puts what stands for a long Data or Text in its place.
fn expanded(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            for key in ["repeat", "repeat_text"] {
                if let (2, Some(Value::String(text)), Some(times)) =
                    (object.len(), object.get(key), object.get("times").and_then(Value::as_u64))
                {
                    return Value::String(text.repeat(times as usize));
                }
            }
            Value::Object(object.into_iter().map(|(key, value)| (key, expanded(value))).collect::<Map<_, _>>())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(expanded).collect()),
        other => other,
    }
}
