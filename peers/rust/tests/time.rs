//! Deadlines. The clock stands still but for what tests wait for.

mod common;

use std::time::Duration;

use common::*;
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
