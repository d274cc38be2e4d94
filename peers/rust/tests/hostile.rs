//! Damaged bytes: whatever arrives, the endpoint lives, answers by the rules or not at all, and takes the next peer.

mod common;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use conformance::types::Type;
use conformance::vectors;
use lahja_capn::wire::{Decoder, Rules};
use lahja_capn::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A small generator of numbers that are good enough to choose places and bytes.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % sides
    }
}

/// `TEST_SEED=...` repeats a run.
fn seed() -> u64 {
    let given = std::env::var("TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_nanos() as u64 | 1
    });
    println!("TEST_SEED={seed}");
    seed
}

fn conversations() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    let mut found: Vec<Vec<u8>> = Vec::new();
    for folder in ["conversations", "refusals"] {
        found.extend(vectors::all(&root, folder).expect("vectors").into_iter().map(|vector| vector.data));
    }
    found.retain(|data| data.len() < 5000);
    assert!(found.len() > 100);
    found
}

fn damaged(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    for _ in 0..=dice.roll(4) {
        if bytes.is_empty() {
            break;
        }
        let at = dice.roll(bytes.len());
        match dice.roll(5) {
            0 => bytes[at] ^= 1 << dice.roll(8),
            1 => bytes[at] = dice.roll(256) as u8,
            2 => {
                let word = at & !7;
                let end = (word + 8).min(bytes.len());
                bytes[word..end].fill([0, 0xff][dice.roll(2)]);
            }
            3 => bytes.truncate(at),
            _ => {
                let word = (at & !7)..(at & !7).saturating_add(8).min(bytes.len());
                bytes.extend_from_within(word);
            }
        }
    }
    bytes
}

/// Panics of tasks do not reach the test by themselves.
static PANICS: AtomicUsize = AtomicUsize::new(0);

async fn attack(endpoint: &Endpoint, bytes: &[u8]) {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(theirs);
    endpoint.accept_over(reader, writer).expect("the endpoint runs");
    let _ = ours.write_all(bytes).await;
    let _ = ours.shutdown().await;
    let mut said = Vec::new();
    ours.read_to_end(&mut said).await.expect("the endpoint closes");
    // What it says are frames, to their end.
    vectors::frames(&said).expect("legal frames");
}

#[tokio::test(start_paused = true)]
async fn no_damaged_conversation_harms_the_endpoint_or_the_next_peer() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        hook(info);
    }));
    let seed = seed();
    let mut dice = Dice(seed);
    let conversations = conversations();
    let endpoint = endpoint("consumer");
    let events = endpoint.subscribe_to_all();
    let requests = endpoint.requests(&[ASK]).expect("known");
    for _ in 0..3000 {
        let bytes = damaged(conversations[dice.roll(conversations.len())].clone(), &mut dice);
        attack(&endpoint, &bytes).await;
        // A user reads every field.
        while let Some(event) = events.try_recv() {
            let _ = Type::show_event(&event);
        }
        while let Some(request) = requests.try_recv() {
            conformance::peer::answer_ask(request);
        }
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    let friend = common::endpoint("friend");
    join(&friend, &endpoint).await;
    friend.wait_for_subscriber(COUNT).await;
    friend.broadcast(&counted(7)).await.expect("sent");
    assert_eq!(number_of(&events.recv().await.expect("an event")), 7);
}

#[test]
fn the_decoder_gives_the_same_frames_however_the_bytes_are_cut() {
    let mut dice = Dice(seed());
    let rules = Rules { first: false, content_bytes: Some(1 << 20) };
    let stream: Vec<u8> = [counted(1), blob_of(70_000), counted(2), blob_of(16_384 - 64), blob_of(200_000), counted(3)]
        .iter()
        .flat_map(|content| {
            let size = content.frame_size() as u32;
            let kind = lahja_capn::wire::FrameKind::Event;
            let header = lahja_capn::wire::Header { size, kind, wire_id: 1, correlation: 0 };
            [header.to_bytes().to_vec(), content.message_bytes().to_vec()].concat()
        })
        .collect();
    let whole: Vec<Vec<u8>> = vectors::frames(&stream).expect("legal").iter().map(bytes_of).collect();
    assert_eq!(whole.len(), 6);
    for _ in 0..200 {
        let mut decoder = Decoder::new();
        let mut rest = &stream[..];
        let mut found = Vec::new();
        let largest = [1, 7, 8, 100, 5_000, 100_000][dice.roll(6)].max(stream.len() / 5_000);
        while !rest.is_empty() {
            let spare = decoder.spare();
            assert!(!spare.is_empty());
            let count = (1 + dice.roll(largest)).min(spare.len()).min(rest.len());
            spare[..count].copy_from_slice(&rest[..count]);
            decoder.advance(count);
            rest = &rest[count..];
            while let Some(frame) = decoder.next_frame(rules).expect("legal") {
                found.push(bytes_of(&frame));
            }
        }
        assert!(found == whole);
    }
}

fn bytes_of(frame: &lahja_capn::wire::Frame) -> Vec<u8> {
    let segments = capnp::message::ReaderSegments::get_segment(frame, 0).expect("one");
    assert_eq!(segments.as_ptr() as usize % 8, 0, "a segment that is not aligned");
    segments.to_vec()
}

#[test]
fn a_header_alone_costs_no_memory_for_its_frame() {
    let header = lahja_capn::wire::Header {
        size: 1 << 30,
        kind: lahja_capn::wire::FrameKind::Event,
        wire_id: 1,
        correlation: 0,
    };
    let mut decoder = Decoder::new();
    decoder.spare()[..16].copy_from_slice(&header.to_bytes());
    decoder.advance(16);
    let rules = Rules { first: false, content_bytes: Some(1 << 30) };
    let before = resident();
    assert!(decoder.next_frame(rules).expect("legal").is_none());
    assert!(!decoder.spare().is_empty());
    let taken = resident().saturating_sub(before);
    assert!(taken < 64 << 20, "{taken} bytes");
    // Refused where it is too large, before memory is taken for it.
    let mut decoder = Decoder::new();
    decoder.spare()[..16].copy_from_slice(&header.to_bytes());
    decoder.advance(16);
    let refused = std::panic::catch_unwind(AssertUnwindSafe(|| {
        decoder.next_frame(Rules { first: false, content_bytes: Some(1 << 20) }).map(|_| ())
    }));
    let fault = refused.expect("no panic").expect_err("over the limit");
    assert_eq!(fault.code, lahja_capn::GoodbyeCode::FrameTooLarge);
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}
