//! Control messages as values: written to, and read whole from, `Control` of wire.capnp.

use capnp::{text, text_list};

use crate::content::new_message;
use crate::error::{FailedCode, Failure, Fault, GoodbyeCode};
use crate::types::Row;
use crate::wire::limits::{FAILED_TEXT_BYTES, GOODBYE_TEXT_BYTES, NAME_TEXT_BYTES};
use crate::wire::{Frame, FrameKind, Header};
use crate::wire_capnp::{control, credit, dropped, failed, goodbye, hello, subscriptions, type_row};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub protocol_version: u16,
    pub name: String,
    pub instance: Vec<u8>,
    pub implementation: String,
    pub version: String,
    pub frame_limit: u32,
    pub keepalive_ms: u32,
    pub event_credit: u64,
    pub request_credit: u64,
    pub features: Vec<String>,
    pub types: Vec<TypeRow>,
}

/// A row of a peer's table, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRow {
    pub wire_id: u16,
    /// The number: a kind may be unknown.
    pub kind: u16,
    pub type_id: u64,
    pub name: String,
    pub layout: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriptions {
    pub sequence: u64,
    pub add: Vec<u64>,
    pub remove: Vec<u64>,
    pub all: bool,
    pub ack_wanted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Hello(Box<Hello>),
    /// A hello of another protocol version: nothing else of it is looked at.
    ForeignHello(u16),
    Declare(Vec<TypeRow>),
    Subscriptions(Subscriptions),
    SubscriptionsAck(u64),
    Credit {
        events: u64,
        requests: u64,
    },
    Failed {
        correlation: u64,
        failure: Failure,
    },
    Ping,
    Pong,
    /// (type id, events)
    Dropped(Vec<(u64, u64)>),
    Goodbye {
        code: GoodbyeCode,
        text: String,
    },
}

pub const PROTOCOL_VERSION: u16 = crate::wire_capnp::PROTOCOL_VERSION;

impl Control {
    /// Reads a control frame, whole: nothing of it is looked at later.
    ///
    /// Never fails for a goodbye: it is one, whatever its fields are.
    pub fn decode(frame: &Frame) -> Result<Control, Fault> {
        // No part of an honest message is reached twice, so reading costs its own size at most. Whatever reads out to
        // more (overlapping parts, elements without words) is refused by this limit.
        let message = frame.reader(frame.message_words());
        let unreadable = |error: capnp::Error| Fault::protocol(format!("a control message cannot be read: {error}"));
        let root: control::Reader<'_> = message.get_root().map_err(unreadable)?;
        match root.which() {
            Err(capnp::NotInSchema(variant)) => Err(Fault::new(
                GoodbyeCode::UnknownControl,
                format!("control variant {variant} is not known in protocol version 1, and no feature was negotiated"),
            )),
            Ok(control::Which::Goodbye(goodbye)) => Ok(read_goodbye(goodbye)),
            Ok(which) => read(which, frame.message_words()).map_err(unreadable),
        }
    }

    /// The bytes of its frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = new_message();
        self.write(message.init_root());
        let words = capnp::serialize::write_message_to_words(&message);
        let header = Header {
            size: (words.len() + crate::wire::limits::HEADER_BYTES) as u32,
            kind: FrameKind::Control,
            wire_id: 0,
            correlation: 0,
        };
        let mut frame = Vec::with_capacity(header.size as usize);
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(&words);
        frame
    }

    fn write(&self, mut root: control::Builder<'_>) {
        match self {
            Control::Hello(value) => write_hello(value, root.init_hello()),
            Control::ForeignHello(version) => root.init_hello().set_protocol_version(*version),
            Control::Declare(rows) => write_rows(rows, root.init_declare().init_types(rows.len() as u32)),
            Control::Subscriptions(value) => {
                let mut out = root.init_subscriptions();
                out.set_sequence(value.sequence);
                let mut add = out.reborrow().init_add(value.add.len() as u32);
                value.add.iter().enumerate().for_each(|(k, id)| add.set(k as u32, *id));
                let mut remove = out.reborrow().init_remove(value.remove.len() as u32);
                value.remove.iter().enumerate().for_each(|(k, id)| remove.set(k as u32, *id));
                out.set_all(value.all);
                out.set_ack_wanted(value.ack_wanted);
            }
            Control::SubscriptionsAck(sequence) => root.init_subscriptions_ack().set_sequence(*sequence),
            Control::Credit { events, requests } => {
                let mut out = root.init_credit();
                out.set_events(*events);
                out.set_requests(*requests);
            }
            Control::Failed { correlation, failure } => {
                let mut out = root.init_failed();
                out.set_correlation(*correlation);
                if let Ok(code) = failure.code.number().try_into() {
                    out.set_code(code);
                }
                out.set_type_name(cut(&failure.type_name, NAME_TEXT_BYTES));
                out.set_text(cut(&failure.text, FAILED_TEXT_BYTES));
            }
            Control::Ping => root.set_ping(()),
            Control::Pong => root.set_pong(()),
            Control::Dropped(counts) => {
                let mut list = root.init_dropped().init_counts(counts.len() as u32);
                for (k, (type_id, count)) in counts.iter().enumerate() {
                    let mut out = list.reborrow().get(k as u32);
                    out.set_type_id(*type_id);
                    out.set_count(*count);
                }
            }
            Control::Goodbye { code, text } => {
                let mut out = root.init_goodbye();
                if let Ok(code) = code.number().try_into() {
                    out.set_code(code);
                }
                out.set_text(cut(text, GOODBYE_TEXT_BYTES));
            }
        }
    }
}

impl TypeRow {
    pub(crate) fn from_own(wire_id: u16, row: &Row) -> TypeRow {
        TypeRow {
            wire_id,
            kind: row.kind as u16,
            type_id: row.type_id,
            name: row.name.clone(),
            layout: row.layout.clone(),
        }
    }

    /// At most so many bytes of a message: its element in the list, name and layout with their padding.
    pub(crate) fn encoded_bytes(row: &Row) -> usize {
        32 + (row.name.len() + 8) + (4 * row.layout.len() + 8)
    }
}

/// At most `bytes` of the text, cut between characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn write_hello(value: &Hello, mut out: hello::Builder<'_>) {
    out.set_protocol_version(value.protocol_version);
    out.set_name(value.name.as_str());
    out.set_instance(&value.instance);
    out.set_implementation(value.implementation.as_str());
    out.set_version(value.version.as_str());
    out.set_frame_limit(value.frame_limit);
    out.set_keepalive_ms(value.keepalive_ms);
    out.set_event_credit(value.event_credit);
    out.set_request_credit(value.request_credit);
    let mut features = out.reborrow().init_features(value.features.len() as u32);
    for (k, feature) in value.features.iter().enumerate() {
        features.set(k as u32, feature.as_str());
    }
    write_rows(&value.types, out.init_types(value.types.len() as u32));
}

fn write_rows(rows: &[TypeRow], mut list: capnp::struct_list::Builder<'_, type_row::Owned>) {
    for (k, row) in rows.iter().enumerate() {
        let mut out = list.reborrow().get(k as u32);
        out.set_wire_id(row.wire_id);
        if let Ok(kind) = row.kind.try_into() {
            out.set_kind(kind);
        }
        out.set_type_id(row.type_id);
        out.set_name(row.name.as_str());
        if !row.layout.is_empty() {
            let mut layout = out.init_layout(row.layout.len() as u32);
            row.layout.iter().enumerate().for_each(|(k, hash)| layout.set(k as u32, *hash));
        }
    }
}

/// How many elements of a list of structs are worth reading. Of more than there are pairs of words each is too short for
/// the second one, a row's type id or a drop's count: all are alike, and there may be a million of a byte each. The first
/// stands for all.
fn worth_reading(elements: u32, message_words: usize) -> usize {
    match elements as usize {
        elements if elements > message_words / 2 => 1,
        elements => elements,
    }
}

fn read(which: control::WhichReader<'_>, message_words: usize) -> capnp::Result<Control> {
    Ok(match which {
        control::Which::Hello(value) => read_hello(value?, message_words)?,
        control::Which::Declare(value) => Control::Declare(read_rows(value?.get_types()?, message_words)?),
        control::Which::Subscriptions(value) => Control::Subscriptions(read_subscriptions(value?)?),
        control::Which::SubscriptionsAck(value) => Control::SubscriptionsAck(value?.get_sequence()),
        control::Which::Credit(value) => read_credit(value?),
        control::Which::Failed(value) => read_failed(value?)?,
        control::Which::Ping(()) => Control::Ping,
        control::Which::Pong(()) => Control::Pong,
        control::Which::Dropped(value) => read_dropped(value?, message_words)?,
        control::Which::Goodbye(value) => read_goodbye(value),
    })
}

fn read_hello(value: hello::Reader<'_>, message_words: usize) -> capnp::Result<Control> {
    let protocol_version = value.get_protocol_version();
    if protocol_version != PROTOCOL_VERSION {
        return Ok(Control::ForeignHello(protocol_version));
    }
    Ok(Control::Hello(Box::new(Hello {
        protocol_version,
        name: string(value.get_name()?)?,
        instance: value.get_instance()?.to_vec(),
        implementation: string(value.get_implementation()?)?,
        version: string(value.get_version()?)?,
        frame_limit: value.get_frame_limit(),
        keepalive_ms: value.get_keepalive_ms(),
        event_credit: value.get_event_credit(),
        request_credit: value.get_request_credit(),
        features: strings(value.get_features()?)?,
        types: read_rows(value.get_types()?, message_words)?,
    })))
}

fn read_rows(
    list: capnp::struct_list::Reader<'_, type_row::Owned>,
    message_words: usize,
) -> capnp::Result<Vec<TypeRow>> {
    list.iter()
        .take(worth_reading(list.len(), message_words))
        .map(|row| {
            Ok(TypeRow {
                wire_id: row.get_wire_id(),
                kind: row.get_kind().map_or_else(|capnp::NotInSchema(number)| number, |kind| kind as u16),
                type_id: row.get_type_id(),
                name: string(row.get_name()?)?,
                layout: row.get_layout()?.iter().collect(),
            })
        })
        .collect()
}

fn read_subscriptions(value: subscriptions::Reader<'_>) -> capnp::Result<Subscriptions> {
    Ok(Subscriptions {
        sequence: value.get_sequence(),
        add: value.get_add()?.iter().collect(),
        remove: value.get_remove()?.iter().collect(),
        all: value.get_all(),
        ack_wanted: value.get_ack_wanted(),
    })
}

fn read_credit(value: credit::Reader<'_>) -> Control {
    Control::Credit { events: value.get_events(), requests: value.get_requests() }
}

fn read_failed(value: failed::Reader<'_>) -> capnp::Result<Control> {
    let code = value
        .get_code()
        .map_or_else(|capnp::NotInSchema(number)| FailedCode::Unknown(number), |code| FailedCode::from(code as u16));
    let failure = Failure {
        code,
        type_name: cut(&string(value.get_type_name()?)?, NAME_TEXT_BYTES).to_owned(),
        text: cut(&string(value.get_text()?)?, FAILED_TEXT_BYTES).to_owned(),
    };
    Ok(Control::Failed { correlation: value.get_correlation(), failure })
}

fn read_dropped(value: dropped::Reader<'_>, message_words: usize) -> capnp::Result<Control> {
    let counts = value.get_counts()?;
    let read = counts.iter().take(worth_reading(counts.len(), message_words));
    Ok(Control::Dropped(read.map(|count| (count.get_type_id(), count.get_count())).collect()))
}

fn read_goodbye(value: capnp::Result<goodbye::Reader<'_>>) -> Control {
    let Ok(value) = value else {
        return Control::Goodbye { code: GoodbyeCode::Unknown(u16::MAX), text: "(unreadable)".to_owned() };
    };
    let code = value
        .get_code()
        .map_or_else(|capnp::NotInSchema(number)| GoodbyeCode::Unknown(number), |code| GoodbyeCode::from(code as u16));
    let text = value.get_text().map_or_else(
        |_| "(unreadable)".to_owned(),
        |text| cut(&String::from_utf8_lossy(text.as_bytes()), GOODBYE_TEXT_BYTES).to_owned(),
    );
    Control::Goodbye { code, text }
}

fn string(text: text::Reader<'_>) -> capnp::Result<String> {
    Ok(text.to_str()?.to_owned())
}

fn strings(list: text_list::Reader<'_>) -> capnp::Result<Vec<String>> {
    list.iter().map(|text| string(text?)).collect()
}
