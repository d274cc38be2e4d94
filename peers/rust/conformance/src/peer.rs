//! A peer that a test drives: commands as JSON lines on standard input, answers and what happens on standard output.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lahja_capn::{
    type_id, ConnectError, Content, Endpoint, Limits, Notice, Notices, Request, RequestError, Serving, Subscription,
};
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{mpsc, oneshot, watch};

use crate::conformance_capnp::{answer, ask, blob, count, Mode};
use crate::types::Type;

pub struct Options {
    pub name: String,
    pub place: Place,
    pub limits: Limits,
}

pub enum Place {
    Serve(PathBuf),
    Connect { path: PathBuf, expect: String },
}

type Failed = Box<dyn std::error::Error>;

/// Events of this kind come by the thousand: they are counted, not printed.
#[derive(Clone, Copy)]
struct Counted {
    count: u64,
    last: u64,
    in_order: bool,
}

fn say(value: Value) {
    let mut out = std::io::stdout().lock();
    // Without a reader there is nobody left to tell; the end of standard input says the same.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

pub async fn run(options: Options) -> Result<(), Failed> {
    let (now, late) = crate::rows();
    let endpoint = Endpoint::builder(options.name).types(now).types_when_needed(late).limits(options.limits).build()?;
    tokio::spawn(tell_notices(endpoint.notices()));
    let _serving: Option<Serving> = match options.place {
        Place::Serve(path) => {
            let serving = endpoint.serve(&path).await?;
            say(json!({"is": "listening"}));
            Some(serving)
        }
        Place::Connect { path, expect } => {
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                if let Err(error) = endpoint.connect(&path, &expect).await {
                    eprintln!("{error}");
                    // A refusal is a line of its own; without a stream there is nothing to be a peer of.
                    if matches!(error, ConnectError::Io { .. }) {
                        std::process::exit(1);
                    }
                }
            });
            None
        }
    };
    let peer = Peer::new(endpoint)?;
    peer.obey().await
}

async fn tell_notices(mut notices: Notices) {
    let name = |id: u64| Type::with_id(id).map(|kind| kind.name);
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Up { peer } => {
                say(json!({"is": "up", "peer": peer}));
            }
            Notice::Down { peer, ending } => {
                let code = ending.code.map_or_else(String::new, |code| code.to_string());
                say(json!({"is": "down", "peer": peer, "code": code, "by_peer": ending.by_peer}));
                eprintln!("{peer}: {ending}");
            }
            Notice::Refused { ending, .. } => {
                let code = ending.code.map_or_else(String::new, |code| code.to_string());
                say(json!({"is": "refused", "code": code}));
                eprintln!("refused: {ending}");
            }
            Notice::PeerSubscribed { type_id, .. } => {
                if let Some(name) = name(type_id) {
                    say(json!({"is": "peer_subscribed", "type": name}));
                }
            }
            Notice::PeerUnsubscribed { type_id, .. } => {
                if let Some(name) = name(type_id) {
                    say(json!({"is": "peer_unsubscribed", "type": name}));
                }
            }
            other => eprintln!("{other:?}"),
        }
    }
}

/// Broadcasts, one after the other: a long `count` must not keep later commands waiting, but keeps its place among events.
struct Send {
    contents: Box<dyn Iterator<Item = Content> + std::marker::Send>,
    done: oneshot::Sender<Result<(), String>>,
}

struct Peer {
    endpoint: Endpoint,
    subscription: Arc<Subscription>,
    counted: watch::Receiver<Counted>,
    held: watch::Sender<bool>,
    sender: mpsc::UnboundedSender<Send>,
}

impl Peer {
    fn new(endpoint: Endpoint) -> Result<Peer, Failed> {
        let subscription = Arc::new(endpoint.subscribe(&[])?);
        let (held, is_held) = watch::channel(false);
        let (count, counted) = watch::channel(Counted { count: 0, last: 0, in_order: true });
        tokio::spawn(take_events(Arc::clone(&subscription), is_held, count));
        let (sender, sends) = mpsc::unbounded_channel();
        tokio::spawn(send_all(endpoint.clone(), sends));
        Ok(Peer { endpoint, subscription, counted, held, sender })
    }

    async fn obey(&self) -> Result<(), Failed> {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            if line.trim().is_empty() {
                continue;
            }
            let command: Value = match serde_json::from_str(&line) {
                Ok(command) => command,
                Err(error) => {
                    say(json!({"is": "error", "text": format!("not a JSON line: {error}")}));
                    continue;
                }
            };
            if command["do"] == "stop" {
                self.endpoint.stop().await;
                say(json!({"is": "stopped"}));
                return Ok(());
            }
            match self.act(&command).await {
                Ok(Some(answer)) => say(answer),
                Ok(None) => {}
                Err(error) => say(json!({"is": "error", "text": error.to_string()})),
            }
        }
        self.endpoint.stop().await;
        Ok(())
    }

    /// `None`: the answer comes later, by itself.
    async fn act(&self, command: &Value) -> Result<Option<Value>, Failed> {
        let tag = command["tag"].clone();
        let answer = match command["do"].as_str().unwrap_or("") {
            "subscribe" => {
                self.subscription.add(&types(command)?)?.wait().await;
                json!({"is": "subscribed"})
            }
            "unsubscribe" => {
                self.subscription.remove(&types(command)?).wait().await;
                json!({"is": "unsubscribed"})
            }
            "broadcast" => {
                let kind = Type::named(command["type"].as_str().unwrap_or(""))?;
                let content = kind.build(&command["value"])?;
                self.send(std::iter::once(content)).await??;
                json!({"is": "sent"})
            }
            "blob" => {
                let (id, size) = (number(command, "id")? as u32, number(command, "size")? as u32);
                let content = Content::build::<blob::Owned>(|mut blob| {
                    blob.set_id(id);
                    let data = blob.init_data(size);
                    for (k, byte) in data.iter_mut().enumerate() {
                        *byte = (k as u64).wrapping_mul(31).wrapping_add(u64::from(id)) as u8;
                    }
                });
                self.send(std::iter::once(content)).await??;
                json!({"is": "sent"})
            }
            "count" => {
                let numbers = number(command, "from")?..number(command, "to")?;
                let done = self
                    .send(numbers.map(|number| Content::build::<count::Owned>(|mut count| count.set_number(number))));
                tokio::spawn(async move {
                    say(match done.await {
                        Ok(Ok(())) => json!({"is": "counted", "tag": tag}),
                        Ok(Err(text)) => json!({"is": "error", "tag": tag, "text": text}),
                        Err(error) => json!({"is": "error", "tag": tag, "text": error.to_string()}),
                    });
                });
                return Ok(None);
            }
            "await_count" => {
                let (wanted, mut counted) = (number(command, "count")?, self.counted.clone());
                tokio::spawn(async move {
                    if let Ok(counted) =
                        counted.wait_for(|counted| counted.count >= wanted).await.map(|counted| *counted)
                    {
                        let Counted { count, in_order, .. } = counted;
                        say(json!({"is": "count_reached", "tag": tag, "count": count, "in_order": in_order}));
                    }
                });
                return Ok(None);
            }
            "hold" => {
                self.held.send_replace(true);
                json!({"is": "holding"})
            }
            "resume" => {
                self.held.send_replace(false);
                json!({"is": "resumed"})
            }
            "serve_requests" => {
                let requests = self.endpoint.requests(&[type_id::<ask::Owned>()])?;
                requests.acknowledged().await;
                tokio::spawn(async move {
                    while let Some(request) = requests.recv().await {
                        answer_ask(request);
                    }
                });
                json!({"is": "serving"})
            }
            "request" => {
                self.request(command, tag)?;
                return Ok(None);
            }
            "status" => {
                let counters = self.endpoint.counters();
                json!({
                    "is": "status",
                    "sent_events": counters.sent_events,
                    "received_events": counters.received_events,
                    "skipped": counters.skipped,
                    "waiting_for_credit": self.endpoint.is_waiting_for_credit(),
                })
            }
            other => return Err(format!("the command {other:?} is not known").into()),
        };
        Ok(Some(answer))
    }

    fn send(
        &self,
        contents: impl Iterator<Item = Content> + std::marker::Send + 'static,
    ) -> oneshot::Receiver<Result<(), String>> {
        let (done, result) = oneshot::channel();
        // The task ends with the runtime only.
        let _ = self.sender.send(Send { contents: Box::new(contents), done });
        result
    }

    fn request(&self, command: &Value, tag: Value) -> Result<(), Failed> {
        let kind = Type::named("Ask")?;
        let content = kind.build(&json!({"number": command["number"], "mode": command["mode"]}))?;
        let timeout = Duration::from_millis(number(command, "timeout_ms")?);
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move {
            let reply = endpoint.request::<answer::Owned>(&content, timeout).await;
            // Otherwise this task would keep the endpoint alive while it prints.
            drop(endpoint);
            let mut said = match reply {
                Ok(reply) => match read_answer(&reply.read()) {
                    Ok((number, text)) => json!({"is": "answered", "number": number.to_string(), "text": text}),
                    Err(error) => json!({"is": "error", "text": error.to_string()}),
                },
                Err(RequestError::Failed { failure, .. }) => json!({
                    "is": "failed", "code": failure.code.to_string(), "type_name": failure.type_name, "text": failure.text,
                }),
                Err(RequestError::NoResponder { .. }) => {
                    json!({"is": "failed", "code": "noHandler", "type_name": "", "text": "no peer takes this request"})
                }
                Err(RequestError::TimedOut(_)) => json!({"is": "timed_out"}),
                Err(RequestError::Lost { .. }) => json!({"is": "lost"}),
                Err(other) => json!({"is": "error", "text": other.to_string()}),
            };
            said["tag"] = tag;
            say(said);
        });
        Ok(())
    }
}

type AnswerReader = capnp::message::TypedReader<lahja_capn::wire::Frame, answer::Owned>;

fn read_answer(reader: &AnswerReader) -> capnp::Result<(u64, String)> {
    let answer = reader.get()?;
    Ok((answer.get_number(), answer.get_text()?.to_string()?))
}

async fn send_all(endpoint: Endpoint, mut sends: mpsc::UnboundedReceiver<Send>) {
    while let Some(Send { contents, done }) = sends.recv().await {
        let mut result = Ok(());
        for content in contents {
            if let Err(error) = endpoint.broadcast(&content).await {
                result = Err(error.to_string());
                break;
            }
        }
        // The command's task may be gone.
        let _ = done.send(result);
    }
}

async fn take_events(subscription: Arc<Subscription>, mut held: watch::Receiver<bool>, count: watch::Sender<Counted>) {
    loop {
        if held.wait_for(|held| !held).await.is_err() {
            return;
        }
        let event = tokio::select! {
            biased;
            _ = held.changed() => continue,
            event = subscription.recv() => event,
        };
        let Some(event) = event else {
            return;
        };
        if event.type_id() == type_id::<count::Owned>() {
            match event.read::<count::Owned>().map(|reader| reader.get().map(|count| count.get_number())) {
                Ok(Ok(number)) => count.send_modify(|counted| {
                    counted.in_order &= counted.count == 0 || number == counted.last.wrapping_add(1);
                    counted.count += 1;
                    counted.last = number;
                }),
                other => say(json!({"is": "error", "text": format!("Count cannot be read: {other:?}")})),
            }
        } else if event.type_id() == type_id::<blob::Owned>() {
            match read_blob(&event) {
                Ok(value) => say(value),
                Err(error) => say(json!({"is": "error", "text": error.to_string()})),
            }
        } else {
            match Type::show_event(&event) {
                (name, Ok(value)) => say(json!({"is": "received", "type": name, "value": value})),
                (name, Err(error)) => say(json!({"is": "error", "text": format!("{name}: {error}")})),
            }
        }
    }
}

fn read_blob(event: &lahja_capn::Event) -> Result<Value, Failed> {
    let reader = event.read::<blob::Owned>()?;
    let blob = reader.get()?;
    let data = blob.get_data()?;
    let sum = data.iter().fold(0u32, |sum, &byte| sum.wrapping_add(u32::from(byte)));
    Ok(json!({"is": "received_blob", "id": blob.get_id(), "size": data.len(), "sum": sum}))
}

/// Answers an `Ask` as its mode says.
pub fn answer_ask(request: Request) {
    let read = request.read::<ask::Owned>().map_err(|error| error.to_string());
    let asked = read.and_then(|reader| {
        let ask = reader.get().map_err(|error| error.to_string())?;
        Ok((ask.get_number(), ask.get_mode()))
    });
    match asked {
        Ok((number, Ok(Mode::Answer))) => {
            let answer = Content::build::<answer::Owned>(|mut answer| {
                answer.set_number(number.wrapping_mul(2));
                answer.set_text(format!("twice {number}"));
            });
            // The row of Answer is known here.
            if let Err(error) = request.respond(&answer) {
                eprintln!("{error}");
            }
        }
        Ok((_, Ok(Mode::Silence))) => request.ignore(),
        Ok((_, Ok(Mode::Fail))) => request.fail("ValueError", "asked to fail"),
        Ok((_, Err(error))) => request.fail("NotInSchema", &format!("mode {} is not known", error.0)),
        Err(text) => request.fail("ReadError", &text),
    }
}

fn types(command: &Value) -> Result<Vec<u64>, Failed> {
    let names = command["types"].as_array().ok_or("types is not a list")?;
    let found = names.iter().map(|name| Type::named(name.as_str().unwrap_or("")).map(|kind| kind.type_id));
    Ok(found.collect::<Result<_, _>>()?)
}

/// A number, or a decimal string.
fn number(command: &Value, key: &str) -> Result<u64, Failed> {
    let value = &command[key];
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.ok_or_else(|| format!("{key} is {value}; wanted a number").into())
}
