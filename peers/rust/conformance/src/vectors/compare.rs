//! Compares what a vector wants with what came.

use serde_json::{json, Value};

use super::consumer::Consumer;
use super::{Failed, Vector};

/// Frames of these kinds are compared one by one; the others an implementation sends as it likes.
const EXACT: [&str; 5] = ["event", "request", "response", "failed", "goodbye"];

const KINDS: [&str; 7] = ["up", "event", "request", "answered", "failed", "lost", "closed"];

/// Says where two values first differ.
pub fn same(got: &Value, wanted: &Value, place: &str) -> Result<(), Failed> {
    match (got, wanted) {
        (Value::Object(got), Value::Object(wanted)) => {
            if let Some(key) = got.keys().find(|key| !wanted.contains_key(*key)) {
                return Err(format!("{place}: {key:?} is too much"));
            }
            for (key, value) in wanted {
                let inner = format!("{place}.{key}");
                same(got.get(key).ok_or_else(|| format!("{inner} is missing"))?, value, &inner)?;
            }
            Ok(())
        }
        (Value::Array(got), Value::Array(wanted)) if got.len() == wanted.len() => (got.iter().zip(wanted))
            .enumerate()
            .try_for_each(|(k, (got, wanted))| same(got, wanted, &format!("{place}[{k}]"))),
        _ if got == wanted => Ok(()),
        _ => Err(format!("{place}: {}, wanted {}", short(got), short(wanted))),
    }
}

pub fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Only the keys that are wanted.
fn same_keys(got: &Value, wanted: &Value, place: &str) -> Result<(), Failed> {
    let Some(keys) = wanted.as_object() else {
        return same(got, wanted, place);
    };
    keys.iter().try_for_each(|(key, value)| same(&got[key], value, &format!("{place}.{key}")))
}

/// Whether the frames that were sent so far, the last of them above all, fit a `match`.
pub fn matches(frames: &[Value], wanted: &Value) -> bool {
    let (Some(frame), Some(keys)) = (frames.last(), wanted.as_object()) else {
        return false;
    };
    let kind = &frame["sent"];
    kind == &wanted["sent"]
        && keys.iter().all(|(key, value)| match (kind.as_str(), key.as_str()) {
            (Some("credit"), "events" | "requests") => {
                let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u128>().ok()).unwrap_or(0);
                let credits = frames.iter().filter(|frame| frame["sent"] == "credit");
                credits.map(|frame| number(&frame[key])).sum::<u128>() >= number(value)
            }
            (_, "add" | "remove" | "types") => {
                let names = frame[key].as_array().map_or(&[][..], Vec::as_slice);
                value.as_array().is_some_and(|wanted| wanted.iter().all(|name| names.contains(name)))
            }
            _ => &frame[key] == value,
        })
}

/// Compares everything when the script is done.
pub fn compare(vector: &Vector, consumer: &Consumer) -> Result<(), Failed> {
    let mut wanted = vector.facts["expect"].as_array().cloned().unwrap_or_default();
    let got = &consumer.facts;
    if vector.folder == "refusals" {
        let codes = vector.facts["goodbye"].as_array().cloned().unwrap_or_default();
        match got.iter().find_map(|fact| fact.get("closed")) {
            None if codes.contains(&json!("")) => {}
            None => return Err(format!("not refused; wanted goodbye {}", short(&json!(codes)))),
            Some(closed) => {
                let code = &closed["code"];
                if !codes.contains(code) || closed["by_peer"] != false {
                    return Err(format!("closed {closed}, wanted goodbye {}", short(&json!(codes))));
                }
                let goodbye = json!({"sent": "goodbye", "code": code});
                same_keys(consumer.frames.last().unwrap_or(&Value::Null), &goodbye, "last frame")?;
                if !consumer.has_ended {
                    return Err("the consumer's direction has not ended behind its goodbye".to_owned());
                }
                wanted.push(json!({"closed": closed}));
                wanted.push(goodbye);
            }
        }
    }
    for kind in KINDS {
        let of_kind = |facts: &[Value]| -> Vec<Value> {
            facts.iter().filter(|fact| fact.get("sent").is_none()).filter_map(|fact| fact.get(kind).cloned()).collect()
        };
        let (got, wanted) = (of_kind(got), of_kind(&wanted));
        same_number(kind, &got, &wanted)?;
        got.iter().zip(&wanted).try_for_each(|(got, wanted)| same_fact(kind, got, wanted))?;
    }
    for kind in EXACT {
        let of_kind = |facts: &[Value]| -> Vec<Value> {
            facts.iter().filter(|fact| fact.get("sent") == Some(&json!(kind))).cloned().collect()
        };
        let (got, wanted) = (of_kind(&consumer.frames), of_kind(&wanted));
        let place = format!("sent {kind}");
        same_number(&place, &got, &wanted)?;
        got.iter().zip(&wanted).try_for_each(|(got, wanted)| same_keys(got, wanted, &place))?;
    }
    let counters = consumer.counters();
    let values = [("skipped", counters.skipped), ("late", counters.late)];
    for (name, value) in values {
        match vector.facts.get("counters").and_then(|counters| counters.get(name)) {
            Some(wanted) => same(&json!(value), wanted, name)?,
            None => continue,
        }
    }
    Ok(())
}

fn same_number(kind: &str, got: &[Value], wanted: &[Value]) -> Result<(), Failed> {
    if got.len() == wanted.len() {
        return Ok(());
    }
    Err(format!("{kind}: {} times, wanted {}; saw {}", got.len(), wanted.len(), short(&json!(got))))
}

fn same_fact(kind: &str, got: &Value, wanted: &Value) -> Result<(), Failed> {
    if wanted.get("unreadable").is_some() {
        return same(&got["type"], &wanted["type"], "event.type");
    }
    match kind {
        // The code cannot be read: may be anything.
        "closed" if wanted["code"].is_null() => same(&got["by_peer"], &wanted["by_peer"], "closed.by_peer"),
        "failed" => {
            let mut got = got.clone();
            if wanted["code"].is_number() && got["code"] == "handlerRaised" {
                got["code"] = wanted["code"].clone();
            }
            same_keys(&got, wanted, kind)
        }
        _ => same(got, wanted, kind),
    }
}
