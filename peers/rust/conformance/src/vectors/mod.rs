//! Runs the vectors of tests/vectors; its README.md is the norm.

mod compare;
mod consumer;
mod load;
mod script;

use std::path::Path;

use lahja_capn::wire::{Decoder, Frame, FrameKind, Header, Rules};
use serde_json::{json, Value};

use crate::types::Type;
use compare::same;
pub use load::{all, Vector};

/// What a vector wanted and did not get.
pub type Failed = String;

/// Folders of vectors.
pub const FOLDERS: [&str; 5] = ["messages", "values", "frames", "conversations", "refusals"];

/// Runs every vector; prints a line per failure, then how many passed and failed. True: all passed.
pub fn run_all(root: &Path) -> Result<bool, Failed> {
    let (mut passed, mut failed) = (0, 0);
    for folder in FOLDERS {
        for vector in all(root, folder)? {
            match run(&vector) {
                Ok(()) => passed += 1,
                Err(text) => {
                    failed += 1;
                    println!("{folder}/{}: {text}", vector.name);
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if passed + failed == 0 {
        return Err(format!("{} has no vectors", root.display()));
    }
    Ok(failed == 0)
}

/// Runs one vector. A script runs with each `send` in one piece, and in many.
pub fn run(vector: &Vector) -> Result<(), Failed> {
    match vector.folder.as_str() {
        "messages" => run_message(vector),
        "values" => run_value(vector),
        "frames" => run_frame(vector),
        _ => {
            script::run(vector, usize::MAX).map_err(|text| format!("in one piece: {text}"))?;
            let piece = if vector.data.len() <= 10_000 { 1 } else { 4093 };
            script::run(vector, piece).map_err(|text| format!("in pieces of {piece}: {text}"))
        }
    }
}

/// Takes whole frames apart, with the library's own decoder.
pub fn frames(mut bytes: &[u8]) -> Result<Vec<Frame>, Failed> {
    let rules = Rules { first: false, content_bytes: Some(lahja_capn::wire::limits::MAX_FRAME_BYTES) };
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let spare = decoder.spare();
        let count = spare.len().min(bytes.len());
        spare[..count].copy_from_slice(&bytes[..count]);
        decoder.advance(count);
        bytes = &bytes[count..];
        while let Some(frame) = decoder.next_frame(rules).map_err(|fault| fault.text)? {
            found.push(frame);
        }
    }
    Ok(found)
}

fn one_frame(bytes: &[u8]) -> Result<Frame, Failed> {
    match <[Frame; 1]>::try_from(frames(bytes)?) {
        Ok([frame]) => Ok(frame),
        Err(frames) => Err(format!("{} frames, wanted one", frames.len())),
    }
}

/// A message as the content of a frame.
fn framed(kind: FrameKind, wire_id: u16, correlation: u64, message: &[u8]) -> Vec<u8> {
    let size = u32::try_from(message.len() + 16).unwrap_or(u32::MAX);
    let mut bytes = Header { size, kind, wire_id, correlation }.to_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

fn type_of(vector: &Vector) -> Result<&'static Type, Failed> {
    let name = vector.text("type");
    let found = if vector.text("schema") == "wire" { Type::of_wire(name) } else { Type::named(name) };
    found.map_err(|error| error.to_string())
}

fn open(frame: &Frame) -> capnp::message::Reader<Frame> {
    frame.reader(lahja_capn::wire::limits::traversal_words(frame.message_words()))
}

fn run_message(vector: &Vector) -> Result<(), Failed> {
    let frame = one_frame(&framed(FrameKind::Event, 1, 0, &vector.data))?;
    let segments = capnp::message::ReaderSegments::len(&frame);
    same(&json!(segments), &vector.facts["segments"], "segments")?;
    let value = type_of(vector)?.show(&open(&frame));
    if vector.facts.get("unreadable").is_some() {
        // An error or some value: the library's business. Reading it has ended, that is what counts.
        return Ok(());
    }
    same(&value.map_err(|error| error.to_string())?, &vector.facts["value"], "value")
}

fn run_value(vector: &Vector) -> Result<(), Failed> {
    let kind = type_of(vector)?;
    let content = kind.build(&vector.facts["build"]).map_err(|error| error.to_string())?;
    let frame = one_frame(&framed(FrameKind::Event, 1, 0, content.message_bytes()))?;
    let value = kind.show(&open(&frame)).map_err(|error| error.to_string())?;
    same(&value, &vector.facts["value"], "value")
}

fn run_frame(vector: &Vector) -> Result<(), Failed> {
    let facts = &vector.facts;
    let frame = one_frame(&vector.data)?;
    let header = frame.header();
    let kind = match header.kind {
        FrameKind::Control => "control",
        FrameKind::Event => "event",
        FrameKind::Request => "request",
        FrameKind::Response => "response",
    };
    same(&json!(kind), &facts["kind"], "kind")?;
    same(&json!(header.wire_id), &facts["wire_id"], "wire_id")?;
    same(&json!(header.correlation.to_string()), &facts["correlation"], "correlation")?;
    same(&json!(capnp::message::ReaderSegments::len(&frame)), &facts["segments"], "segments")?;
    let (kind, wanted) = if header.kind == FrameKind::Control {
        (Type::of_wire("Control").map_err(|error| error.to_string())?, &facts["control"])
    } else {
        (type_of(vector)?, &facts["value"])
    };
    same(&kind.show(&open(&frame)).map_err(|error| error.to_string())?, wanted, kind.name)?;
    if facts.get("read_only") == Some(&Value::Bool(true)) {
        return Ok(());
    }
    let content = kind.build(wanted).map_err(|error| error.to_string())?;
    let written = framed(header.kind, header.wire_id, header.correlation, content.message_bytes());
    if written[4..16] != vector.data[4..16] {
        return Err(format!("wrote the header {:?}, wanted {:?}", &written[..16], &vector.data[..16]));
    }
    let again = one_frame(&written)?;
    same(&kind.show(&open(&again)).map_err(|error| error.to_string())?, wanted, "written and read again")
}
