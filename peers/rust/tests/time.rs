//! Deadlines. The clock stands still but for what tests wait for.

mod common;

use std::time::Duration;

use common::*;
use lahja_capn::wire::FrameKind;
use lahja_capn::{GoodbyeCode, Limits, Notice};
use serde_json::json;
use tokio::time::Instant;

const KEEPALIVE: Duration = Duration::from_secs(10);

fn about(waited: Duration, wanted: Duration) {
    assert!((wanted..wanted + Duration::from_millis(200)).contains(&waited), "{waited:?}, wanted {wanted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_twice_and_taken_for_dead_after_three_intervals() {
    let one = endpoint_with("one", Limits { keepalive: KEEPALIVE, ..Limits::default() });
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    let start = Instant::now();
    for pings in 1..=2 {
        assert_eq!(raw.next().await, Some(json!({"ping": null})));
        about(start.elapsed(), KEEPALIVE * pings);
    }
    assert_eq!(raw.next().await.expect("a frame")["goodbye"]["code"], "keepaliveTimeout");
    about(start.elapsed(), KEEPALIVE * 3);
    assert_eq!(raw.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn any_byte_is_life() {
    let one = endpoint_with("one", Limits { keepalive: KEEPALIVE, ..Limits::default() });
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[COUNT]).await;
    for _ in 0..5 {
        tokio::time::sleep(KEEPALIVE * 2 + KEEPALIVE / 2).await;
        // Half of a frame, then, later, the rest.
        raw.bytes(&[0x2c, 0, 0, 0, 0, 0, 0, 0]).await;
        tokio::time::sleep(KEEPALIVE * 2 + KEEPALIVE / 2).await;
        let mut rest = [0; 40];
        (rest[12], rest[22], rest[20], rest[24]) = (3, 1, 1, 6);
        // Header's second half, segment table, root pointer, discriminant of ping.
        raw.bytes(&rest).await;
        raw.until("pong").await;
    }
    assert_eq!(one.peers(), ["raw"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_something_in_each_interval_is_not_pinged() {
    let one = endpoint_with("one", Limits { keepalive: KEEPALIVE, ..Limits::default() });
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    for _ in 0..5 {
        tokio::time::sleep(KEEPALIVE * 7 / 10).await;
        raw.control(json!({"ping": null})).await;
        assert_eq!(raw.next().await, Some(json!({"pong": null})));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_stopped_itself_asks_twice_before_it_judges() {
    let one = endpoint_with("one", Limits { keepalive: KEEPALIVE, ..Limits::default() });
    let mut notices = one.notices();
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    wait_for(&mut notices, |notice| matches!(notice, Notice::Up { .. })).await;
    // All that time in one step, as after a SIGSTOP.
    tokio::time::advance(KEEPALIVE * 100).await;
    let start = Instant::now();
    assert_eq!(raw.next().await, Some(json!({"ping": null})));
    assert_eq!(raw.next().await, Some(json!({"ping": null})));
    about(start.elapsed(), KEEPALIVE);
    assert_eq!(raw.next().await.expect("a frame")["goodbye"]["code"], "keepaliveTimeout");
    about(start.elapsed(), KEEPALIVE * 2);
}

#[tokio::test(start_paused = true)]
async fn no_keepalive_means_no_ping() {
    let one = endpoint("one");
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    let quiet = tokio::time::timeout(Duration::from_secs(500), raw.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_is_ended() {
    let one = endpoint("one");
    let start = Instant::now();
    let mut mute = Raw::to(&one);
    let mut half = Raw::to(&one);
    half.hello("half", 1).await;
    assert_eq!(half.until("goodbye").await["code"], "handshakeTimeout");
    assert_eq!(mute.until("goodbye").await["code"], "handshakeTimeout");
    about(start.elapsed(), Duration::from_secs(10));
}

/// Bytes of a frame of `Count`.
const COUNT_BYTES: u64 = 40;

async fn send_counts(raw: &mut Raw, numbers: std::ops::Range<u64>) {
    for number in numbers {
        raw.frame(FrameKind::Event, 1, 0, &counted(number)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_without_credit_gets_what_it_is_owed_within_a_second_however_little() {
    let one = endpoint_with("one", Limits { event_credit_bytes: 1000, keepalive: Duration::ZERO, ..Limits::default() });
    let counts = one.subscribe(&[COUNT]).expect("known");
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    raw.control(json!({"subscriptionsAck": {"sequence": "1"}})).await;
    // The window is used up to the last byte.
    send_counts(&mut raw, 0..25).await;
    for number in 0..3 {
        counts.recv().await.expect("an event");
        let start = Instant::now();
        assert_eq!(raw.until("credit").await, json!({"events": COUNT_BYTES.to_string(), "requests": "0"}));
        let waited = start.elapsed();
        assert!((Duration::from_millis(1)..=Duration::from_secs(1)).contains(&waited), "{waited:?}");
        send_counts(&mut raw, 25 + number..26 + number).await;
        // Nothing is owed for a while: that is no reason to look no more.
        tokio::time::sleep(Duration::from_millis(3_100)).await;
    }
    counts.recv().await.expect("an event");
    raw.until("credit").await;
    // It may send again: less than half of the window waits.
    counts.recv().await.expect("an event");
    let more = tokio::time::timeout(Duration::from_secs(100), raw.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(start_paused = true)]
async fn the_same_holds_for_requests() {
    let limits = Limits { request_credit_bytes: 1000, keepalive: Duration::ZERO, ..Limits::default() };
    let one = endpoint_with("one", limits);
    let requests = one.requests(&[ASK]).expect("known");
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    raw.control(json!({"subscriptionsAck": {"sequence": "1"}})).await;
    let size = question(0).frame_size() as u64;
    for number in 1..=1000_u64.div_ceil(size) {
        raw.frame(FrameKind::Request, 2, number, &question(number)).await;
    }
    let _open = requests.recv().await.expect("a request");
    let start = Instant::now();
    assert_eq!(raw.until("credit").await, json!({"events": "0", "requests": size.to_string()}));
    assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_acknowledge_subscriptions_is_given_up_after_30_seconds() {
    let one = endpoint("one");
    let _counts = one.subscribe(&[COUNT]).expect("known");
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    raw.control(json!({"subscriptionsAck": {"sequence": "1"}})).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(one.peers(), ["raw"]);
    let start = Instant::now();
    let _blobs = one.subscribe(&[BLOB]).expect("known");
    raw.until("subscriptions").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    // The first of the two is the one that is late.
    let _asks = one.subscribe(&[ASK]).expect("known");
    let goodbye = raw.until("goodbye").await;
    assert_eq!(goodbye["code"], "protocolError");
    assert!(goodbye["text"].as_str().is_some_and(|text| text.contains("acknowledged")), "{goodbye}");
    about(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_some_leaves_the_time_for_the_others() {
    let one = endpoint("one");
    let _counts = one.subscribe(&[COUNT]).expect("known");
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    let _blobs = one.subscribe(&[BLOB]).expect("known");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let start = Instant::now();
    raw.control(json!({"subscriptionsAck": {"sequence": "1"}})).await;
    assert_eq!(raw.until("goodbye").await["code"], "protocolError");
    about(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_ignores_goodbye_is_cut_off_after_two_seconds() {
    let one = endpoint("one");
    let mut notices = one.notices();
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    wait_for(&mut notices, |notice| matches!(notice, Notice::Up { .. })).await;
    let start = Instant::now();
    let stopping = tokio::spawn({
        let one = one.clone();
        async move { one.stop().await }
    });
    assert_eq!(raw.until("goodbye").await["code"], "shutdown");
    assert_eq!(raw.next().await, None);
    // Read and discarded, not judged.
    raw.bytes(b"not a frame at all, and of a good length").await;
    stopping.await.expect("stops");
    about(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_that_cannot_be_written_does_not_keep_the_connection() {
    let one = endpoint("one");
    let mut notices = one.notices();
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[BLOB]).await;
    wait_for(&mut notices, |notice| matches!(notice, Notice::PeerSubscribed { .. })).await;
    // More than the pipe takes, and nobody reads it.
    one.broadcast(&blob_of(1 << 19)).await.expect("queued");
    one.broadcast(&blob_of(1 << 19)).await.expect("queued");
    one.broadcast(&blob_of(1 << 19)).await.expect("queued");
    tokio::time::sleep(Duration::from_millis(10)).await;
    let start = Instant::now();
    one.stop().await;
    // Two seconds for the queue, two for the goodbye.
    about(start.elapsed(), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_stream_without_goodbye_is_told_and_closes() {
    let one = endpoint("one");
    let mut notices = one.notices();
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    raw.end().await;
    let notice = wait_for(&mut notices, |notice| matches!(notice, Notice::Down { .. })).await;
    let Notice::Down { ending, .. } = notice else { unreachable!() };
    assert_eq!((ending.code, ending.by_peer), (None, true));
    while raw.next().await.is_some() {}
    assert!(one.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_gets_no_pile_of_answers() {
    let one = endpoint("one");
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[]).await;
    for _ in 0..1000 {
        raw.control(json!({"ping": null})).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    raw.control(json!({"goodbye": {"code": "shutdown"}})).await;
    let mut pongs = 0;
    while let Some(said) = raw.next().await {
        pongs += usize::from(said.get("pong").is_some());
    }
    assert!((1..1000).contains(&pongs), "{pongs}");
}

#[tokio::test]
async fn the_codes_are_spelled_as_in_the_schema() {
    assert_eq!(GoodbyeCode::from(9).to_string(), "keepaliveTimeout");
    assert_eq!(GoodbyeCode::from(300), GoodbyeCode::Unknown(300));
    assert_eq!(GoodbyeCode::from(300).number(), 300);
}
