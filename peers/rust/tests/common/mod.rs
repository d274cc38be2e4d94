//! What several tests need: endpoints that know the types of conformance.capnp, and a peer made of bare frames.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Once;
use std::time::Duration;

use conformance::conformance_capnp::{ask, blob, count};
use conformance::types::Type;
use lahja_capn::wire::{Decoder, Frame, FrameKind, Header, Rules};
use lahja_capn::{type_id, Content, Endpoint, Limits, Notice, Notices};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub const COUNT: u64 = type_id::<count::Owned>();
pub const BLOB: u64 = type_id::<blob::Owned>();
pub const ASK: u64 = type_id::<ask::Owned>();

/// Longer than anything takes here; a hang is told from patience.
pub const LONG: Duration = Duration::from_secs(20);

pub fn endpoint(name: &str) -> Endpoint {
    endpoint_with(name, Limits { keepalive: Duration::ZERO, ..Limits::default() })
}

/// Ends a test program that hangs: a fault may keep a test waiting for what never comes.
fn watch_over_tests() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(60));
            eprintln!("a test of this program hangs: it runs for longer than a minute");
            std::process::exit(101);
        });
    });
}

pub fn endpoint_with(name: &str, limits: Limits) -> Endpoint {
    watch_over_tests();
    let (now, late) = conformance::rows();
    Endpoint::builder(name).types(now).types_when_needed(late).limits(limits).build().expect("an endpoint")
}

pub fn counted(number: u64) -> Content {
    Content::build::<count::Owned>(|mut count| count.set_number(number))
}

pub fn blob_of(size: u32) -> Content {
    Content::build::<blob::Owned>(|blob| {
        blob.init_data(size);
    })
}

pub fn question(number: u64) -> Content {
    Content::build::<ask::Owned>(|mut ask| ask.set_number(number))
}

pub fn number_of(event: &lahja_capn::Event) -> u64 {
    let reader = event.read::<count::Owned>().expect("a Count");
    reader.get().expect("a root").get_number()
}

/// An empty folder with a short path; removed with what is in it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lc-rs-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits for a notice that fits.
pub async fn wait_for(notices: &mut Notices, fits: impl Fn(&Notice) -> bool) -> Notice {
    let search = async {
        loop {
            let notice = notices.recv().await.expect("the endpoint is there");
            if fits(&notice) {
                return notice;
            }
        }
    };
    tokio::time::timeout(LONG, search).await.expect("a notice that fits")
}

/// Connects two endpoints in memory: the first one opens the stream.
pub async fn join(connector: &Endpoint, acceptor: &Endpoint) {
    let (one, other) = tokio::io::duplex(1 << 16);
    let (reader, writer) = tokio::io::split(other);
    acceptor.accept_over(reader, writer).expect("the acceptor runs");
    let (reader, writer) = tokio::io::split(one);
    connector.connect_over(reader, writer, &acceptor.name()).await.expect("a connection");
}

/// A peer that says what it is told to, and nothing by itself.
pub struct Raw {
    pipe: DuplexStream,
    decoder: Decoder,
}

impl Raw {
    /// A stream that the endpoint believes was opened by this peer.
    pub fn to(endpoint: &Endpoint) -> Raw {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (reader, writer) = tokio::io::split(theirs);
        endpoint.accept_over(reader, writer).expect("the endpoint runs");
        Raw::over(ours)
    }

    pub fn over(pipe: DuplexStream) -> Raw {
        Raw { pipe, decoder: Decoder::new() }
    }

    pub async fn control(&mut self, control: Value) {
        let content = Type::of_wire("Control").and_then(|kind| kind.build(&control)).expect("a control message");
        self.frame(FrameKind::Control, 0, 0, &content).await;
    }

    pub async fn frame(&mut self, kind: FrameKind, wire_id: u16, correlation: u64, content: &Content) {
        let header = Header { size: content.frame_size() as u32, kind, wire_id, correlation };
        self.bytes(&header.to_bytes()).await;
        self.bytes(content.message_bytes()).await;
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        // The endpoint may have closed the connection; the test looks at what it said.
        let _ = self.pipe.write_all(bytes).await;
    }

    pub async fn hello(&mut self, name: &str, instance: u8) {
        let types = json!([
            {"wireId": 1, "typeId": COUNT.to_string()},
            {"wireId": 2, "typeId": ASK.to_string()},
            {"wireId": 3, "typeId": BLOB.to_string()},
        ]);
        self.control(json!({"hello": {
            "protocolVersion": 1, "name": name, "instance": format!("{instance:02x}").repeat(16),
            "frameLimit": 1 << 20, "eventCredit": "1000000", "requestCredit": "1000000", "types": types,
        }}))
        .await;
    }

    pub async fn subscriptions(&mut self, sequence: u64, add: &[u64]) {
        let add: Vec<String> = add.iter().map(u64::to_string).collect();
        self.control(json!({"subscriptions": {"sequence": sequence.to_string(), "add": add}})).await;
    }

    /// Says hello and subscribes; the endpoint then takes the connection for up.
    pub async fn come_up(&mut self, name: &str, instance: u8, add: &[u64]) {
        self.hello(name, instance).await;
        self.until("subscriptions").await;
        self.subscriptions(1, add).await;
    }

    /// The next frame: of a control message its only member, of content its kind. `None`: the stream has ended.
    pub async fn next(&mut self) -> Option<Value> {
        let frame = self.next_frame().await?;
        Some(match frame.header().kind {
            FrameKind::Control => {
                let kind = Type::of_wire("Control").expect("known");
                kind.show(&frame.reader(1 << 20)).expect("a readable control message")
            }
            FrameKind::Event => json!({"event": frame.size()}),
            FrameKind::Request => json!({"request": frame.header().correlation}),
            FrameKind::Response => json!({"response": frame.header().correlation}),
        })
    }

    pub async fn next_frame(&mut self) -> Option<Frame> {
        let rules = Rules { first: false, content_bytes: Some(1 << 30) };
        let search = async {
            loop {
                if let Some(frame) = self.decoder.next_frame(rules).expect("a legal frame") {
                    return Some(frame);
                }
                match self.pipe.read(self.decoder.spare()).await.expect("a pipe") {
                    0 => return None,
                    count => self.decoder.advance(count),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(600), search).await.expect("a frame, or the end")
    }

    /// Reads on until a frame of this kind; what it says.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let said = self.next().await.unwrap_or_else(|| panic!("the stream ended before {kind}"));
            if let Some(content) = said.get(kind) {
                return content.clone();
            }
        }
    }

    /// Ends this peer's direction.
    pub async fn end(&mut self) {
        let _ = self.pipe.shutdown().await;
    }
}
