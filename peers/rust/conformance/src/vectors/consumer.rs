//! The implementation under test: an endpoint with a user who does what the script says.
//!
//! It is the whole endpoint, tasks included, over a pipe in memory, on a runtime of one thread whose clock stands still.
//! Nothing but what the runner does can wake a task, so "all that it can do" is done after some turns of the scheduler.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lahja_capn::wire::{FrameKind, Header};
use lahja_capn::{
    Content, Counters, Ending, Endpoint, GoodbyeCode, Limits, Notice, Notices, Request, RequestError, Requests,
    SendError, Subscription, UNLIMITED,
};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{yield_now, JoinHandle};

use super::{open, Failed};
use crate::conformance_capnp::answer;
use crate::peer::answer_ask;
use crate::types::Type;
use crate::values::from_hex;

/// More than any vector has, so that the pipe itself never holds anybody up.
const PIPE_BYTES: usize = 128 << 20;

/// Turns of the scheduler in which nothing may happen before nothing more will. The longest chain is a byte that wakes the
/// reader, which wakes the writer, which wakes the runner; a request's task makes it one longer.
const IDLE_TURNS: usize = 8;

const INSTANCE: &str = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf";

pub struct Consumer {
    endpoint: Endpoint,
    subscription: Subscription,
    requests: Option<Requests>,
    notices: Notices,
    /// Requests that were shown and are not answered.
    kept: Vec<Request>,
    serves: bool,
    is_held: bool,
    asks: HashMap<String, JoinHandle<()>>,
    /// What the tasks of requests saw.
    answers: Arc<Mutex<Vec<Value>>>,
    pipe: DuplexStream,
    received: Vec<u8>,
    names: HashMap<u64, &'static str>,
    /// What the user saw, and what was sent, in order.
    pub facts: Vec<Value>,
    pub frames: Vec<Value>,
    pub request_numbers: Vec<u64>,
    pub last_sequence: u64,
    /// The consumer's direction of the stream is at its end.
    pub has_ended: bool,
}

impl Consumer {
    pub fn new(role: &str, setup: &Value) -> Result<Consumer, Failed> {
        let number = |key: &str, default: u64| match setup.get(key) {
            None => default,
            Some(Value::String(text)) if text == "unlimited" => UNLIMITED,
            Some(Value::String(text)) => text.parse().unwrap_or(default),
            Some(value) => value.as_u64().unwrap_or(default),
        };
        let text = |key: &str, default: &str| setup.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
        let flag = |key: &str| setup.get(key).and_then(Value::as_bool).unwrap_or(false);
        let limits = Limits {
            frame_bytes: number("frame_limit", 1_048_576) as u32,
            event_credit_bytes: number("event_credit", 16_777_216),
            request_credit_bytes: number("request_credit", 4_194_304),
            keepalive: Duration::from_millis(number("keepalive_ms", 0)),
            ..Limits::default()
        };
        let instance = from_hex(&text("instance", INSTANCE)).and_then(|bytes| bytes.try_into().ok());
        let (now, late) = crate::rows();
        let endpoint = Endpoint::builder(text("name", "consumer"))
            .types(now)
            .types_when_needed(late)
            .limits(limits)
            .instance(instance.ok_or("instance is not 16 bytes")?)
            .build()
            .map_err(|error| error.to_string())?;
        let notices = endpoint.notices();
        let subscription = if flag("all") {
            endpoint.subscribe_to_all()
        } else {
            endpoint.subscribe(&[]).map_err(|error| error.to_string())?
        };
        let (pipe, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (reader, writer) = tokio::io::split(theirs);
        let mut consumer = Consumer {
            endpoint: endpoint.clone(),
            subscription,
            requests: None,
            notices,
            kept: Vec::new(),
            serves: flag("serve"),
            is_held: false,
            asks: HashMap::new(),
            answers: Arc::default(),
            pipe,
            received: Vec::new(),
            names: HashMap::new(),
            facts: Vec::new(),
            frames: Vec::new(),
            request_numbers: Vec::new(),
            last_sequence: 0,
            has_ended: false,
        };
        consumer.subscribe(&types(setup.get("subscribe"))?)?;
        if role == "connector" {
            tokio::spawn(async move {
                // How it ends is seen in the notices.
                let _ = endpoint.connect_over(reader, writer, "vector").await;
            });
        } else {
            endpoint.accept_over(reader, writer).map_err(|error| error.to_string())?;
        }
        Ok(consumer)
    }

    pub fn counters(&self) -> Counters {
        self.endpoint.counters()
    }

    pub async fn receive(&mut self, bytes: &[u8], piece: usize) -> Result<(), Failed> {
        for part in bytes.chunks(piece.min(bytes.len().max(1))) {
            if self.pipe.write_all(part).await.is_err() {
                // The consumer has closed the connection; facts say why.
                break;
            }
            // So that this piece arrives by itself.
            yield_now().await;
            yield_now().await;
        }
        self.settle().await
    }

    pub async fn eof(&mut self) -> Result<(), Failed> {
        // The consumer may have closed the connection.
        let _ = self.pipe.shutdown().await;
        self.settle().await
    }

    /// Lets the consumer do all that it can do, and collects what it sends and shows.
    pub async fn settle(&mut self) -> Result<(), Failed> {
        let mut idle = 0;
        while idle < IDLE_TURNS {
            yield_now().await;
            idle = if self.collect().await? { 0 } else { idle + 1 };
        }
        Ok(())
    }

    /// True: there was something.
    async fn collect(&mut self) -> Result<bool, Failed> {
        let mut seen = self.collect_bytes().await?;
        while let Some(notice) = self.notices.try_recv() {
            seen = true;
            match notice {
                Notice::Up { peer } => self.facts.push(json!({"up": peer})),
                Notice::Down { ending, .. } | Notice::Refused { ending, .. } => {
                    self.facts.push(json!({"closed": closed(&ending)}));
                }
                _ => {}
            }
        }
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        seen |= !answers.is_empty();
        self.facts.extend(answers);
        if self.is_held {
            return Ok(seen);
        }
        while let Some(event) = self.subscription.try_recv() {
            seen = true;
            self.facts.push(json!({"event": shown(Type::show_event(&event))}));
        }
        while let Some(request) = self.requests.as_ref().and_then(Requests::try_recv) {
            seen = true;
            let mut fact = shown(Type::show_event(request.event()));
            fact["number"] = json!(request.number().to_string());
            self.facts.push(json!({"request": fact}));
            if self.serves {
                answer_ask(request);
            } else {
                self.kept.push(request);
            }
        }
        Ok(seen)
    }

    async fn collect_bytes(&mut self) -> Result<bool, Failed> {
        let mut seen = false;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = tokio::select! {
                biased;
                count = self.pipe.read(&mut buffer), if !self.has_ended => count.map_err(|error| error.to_string())?,
                () = std::future::ready(()) => break,
            };
            seen = true;
            self.has_ended = count == 0;
            self.received.extend_from_slice(&buffer[..count]);
        }
        let whole = whole_frames(&self.received)?;
        let bytes: Vec<u8> = self.received.drain(..whole).collect();
        for frame in super::frames(&bytes)? {
            self.sent(&frame)?;
        }
        Ok(seen)
    }

    fn sent(&mut self, frame: &lahja_capn::wire::Frame) -> Result<(), Failed> {
        if self.frames.last().is_some_and(|last| last["sent"] == "goodbye") {
            return Err("a frame behind goodbye".to_owned());
        }
        let Header { kind, wire_id, correlation, .. } = frame.header();
        let sent = match kind {
            FrameKind::Control => return self.sent_control(frame),
            FrameKind::Event => "event",
            FrameKind::Request => "request",
            FrameKind::Response => "response",
        };
        let name = self.names.get(&u64::from(wire_id));
        let name = *name.ok_or_else(|| format!("content under wire id {wire_id}, which was not declared"))?;
        let kind_of = Type::named(name).map_err(|error| error.to_string())?;
        let value = kind_of.show(&open(frame)).map_err(|error| error.to_string())?;
        let mut fact = json!({"sent": sent, "type": name, "value": value});
        if correlation != 0 {
            fact["correlation"] = json!(correlation.to_string());
        }
        if kind == FrameKind::Request {
            self.request_numbers.push(correlation);
        }
        self.frames.push(fact);
        Ok(())
    }

    fn sent_control(&mut self, frame: &lahja_capn::wire::Frame) -> Result<(), Failed> {
        let control = Type::of_wire("Control").and_then(|kind| kind.show(&open(frame)));
        let control = control.map_err(|error| error.to_string())?;
        let Some((variant, content)) = control.as_object().and_then(|object| object.iter().next()) else {
            return Err("a control message of no kind".to_owned());
        };
        let mut fact = if content.is_object() { content.clone() } else { json!({}) };
        fact["sent"] = json!(variant);
        // Types by name, as matches have them.
        let name_of = |id: &Value| id.as_str().and_then(|id| Type::with_id(id.parse().ok()?)).map(|kind| kind.name);
        if let Some(rows) = content.get("types").and_then(Value::as_array) {
            let events = rows.iter().filter(|row| row["wireId"] != 0);
            let names: Vec<(u64, &'static str)> =
                events.filter_map(|row| Some((row["wireId"].as_u64()?, name_of(&row["typeId"])?))).collect();
            fact["types"] = names.iter().map(|(_, name)| json!(name)).collect();
            self.names.extend(names);
        }
        if variant == "subscriptions" {
            for key in ["add", "remove"] {
                fact[key] = content[key].as_array().into_iter().flatten().map(|id| json!(name_of(id))).collect();
            }
            self.last_sequence = content["sequence"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        }
        self.frames.push(fact);
        Ok(())
    }

    pub async fn act(&mut self, action: &str, step: &Value) -> Result<(), Failed> {
        let tag = step["tag"].as_str().unwrap_or("").to_owned();
        match action {
            "broadcast" => {
                let content = content(step)?;
                match self.endpoint.broadcast(&content).await {
                    // The user is told; whether it was sent is what the script looks at.
                    Ok(_) | Err(SendError::FrameTooLarge { .. }) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            "request" => {
                let content = content(step)?;
                let (endpoint, answers) = (self.endpoint.clone(), Arc::clone(&self.answers));
                let ask = {
                    let tag = tag.clone();
                    async move {
                        let fact = answered(&endpoint, &content, &tag).await;
                        answers.lock().unwrap_or_else(PoisonError::into_inner).push(fact);
                    }
                };
                self.asks.insert(tag, tokio::spawn(ask));
            }
            "forget" => self.asks.remove(&tag).ok_or(format!("no request has tag {tag:?}"))?.abort(),
            "subscribe" => self.subscribe(&types(step.get("types"))?)?,
            "unsubscribe" => {
                let ids = types(step.get("types"))?;
                if ids.contains(&ask_id()) {
                    self.requests = None;
                }
                drop(self.subscription.remove(&ids));
            }
            "hold" => self.is_held = true,
            "resume" => self.is_held = false,
            "stop" => self.endpoint.disconnect("vector"),
            other => return Err(format!("the action {other:?} is not known")),
        }
        self.settle().await
    }

    /// Events of these types, and requests of `Ask` if it is among them.
    fn subscribe(&mut self, ids: &[u64]) -> Result<(), Failed> {
        drop(self.subscription.add(ids).map_err(|error| error.to_string())?);
        if ids.contains(&ask_id()) && self.requests.is_none() {
            self.requests = Some(self.endpoint.requests(&[ask_id()]).map_err(|error| error.to_string())?);
        }
        Ok(())
    }
}

async fn answered(endpoint: &Endpoint, content: &Content, tag: &str) -> Value {
    // The clock stands still: no request of a script times out.
    match endpoint.request::<answer::Owned>(content, Duration::from_secs(3600)).await {
        Ok(reply) => {
            let mut fact = shown(Type::show_event(&reply.into_event()));
            fact["tag"] = json!(tag);
            json!({"answered": fact})
        }
        Err(RequestError::Failed { failure, .. }) => {
            let code = match failure.code {
                lahja_capn::FailedCode::Unknown(number) => json!(number),
                code => json!(code.to_string()),
            };
            json!({"failed": {"tag": tag, "code": code, "typeName": failure.type_name, "text": failure.text}})
        }
        Err(RequestError::UnexpectedType { .. }) => json!({"failed": {"tag": tag, "code": ""}}),
        Err(RequestError::Lost { .. }) => json!({"lost": {"tag": tag}}),
        Err(other) => json!({"failed": {"tag": tag, "code": other.to_string()}}),
    }
}

fn content(step: &Value) -> Result<Content, Failed> {
    let kind = Type::named(step["type"].as_str().unwrap_or(""));
    kind.and_then(|kind| kind.build(&step["value"])).map_err(|error| error.to_string())
}

fn types(names: Option<&Value>) -> Result<Vec<u64>, Failed> {
    let names = names.and_then(Value::as_array).into_iter().flatten();
    let found = names.map(|name| Type::named(name.as_str().unwrap_or("")).map(|kind| kind.type_id));
    found.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn ask_id() -> u64 {
    lahja_capn::type_id::<crate::conformance_capnp::ask::Owned>()
}

fn shown((name, value): (&str, Result<Value, crate::values::Error>)) -> Value {
    match value {
        Ok(value) => json!({"type": name, "value": value}),
        Err(_) => json!({"type": name, "unreadable": true}),
    }
}

fn closed(ending: &Ending) -> Value {
    let code = match ending.code {
        None => json!(""),
        Some(GoodbyeCode::Unknown(number)) => json!(number),
        Some(code) => json!(code.to_string()),
    };
    json!({"code": code, "by_peer": ending.by_peer})
}

/// How many bytes are whole frames.
fn whole_frames(bytes: &[u8]) -> Result<usize, Failed> {
    let mut at = 0;
    while let Some(length) = bytes[at..].first_chunk::<4>() {
        let size = Header::check_length(u32::from_le_bytes(*length)).map_err(|fault| fault.text)? as usize;
        if bytes.len() - at < size {
            break;
        }
        at += size;
    }
    Ok(at)
}
