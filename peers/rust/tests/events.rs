//! Events between endpoints on real sockets.

mod common;

use std::time::Duration;

use common::*;
use conformance::conformance_capnp::{answer, ask, everything, late};
use lahja_capn::wire::FrameKind;
use lahja_capn::{type_id, Content, Endpoint, GoodbyeCode, Handling, Limits, Notice, ReadError, Row, SendError};
use serde_json::json;

#[tokio::test]
async fn an_event_reaches_the_peer_that_subscribes_and_says_where_it_came_from() {
    let folder = Folder::new();
    let (server, client) = (endpoint("server"), endpoint("client"));
    let _serving = server.serve(folder.socket()).await.expect("serves");
    let counts = client.subscribe(&[COUNT]).expect("known");
    client.connect(folder.socket(), "server").await.expect("connects");
    server.wait_for_subscriber(COUNT).await;
    assert_eq!(server.broadcast(&counted(7)).await.expect("sent"), 1);
    let event = counts.recv().await.expect("an event");
    assert_eq!((number_of(&event), event.origin()), (7, "server"));
    let wrong = event.read::<everything::Owned>();
    assert!(matches!(wrong, Err(ReadError::WrongType { got, .. }) if got == COUNT));
    assert_eq!((client.peers(), server.peers()), (vec!["server".to_owned()], vec!["client".to_owned()]));
}

#[tokio::test]
async fn nobody_gets_an_event_that_nobody_subscribes_to() {
    let (one, other) = (endpoint("one"), endpoint("other"));
    join(&one, &other).await;
    assert_eq!(one.broadcast(&counted(1)).await.expect("no error"), 0);
    let unknown = Content::build::<everything::Owned>(|_| {});
    let stranger = Endpoint::builder("stranger").build().expect("an endpoint");
    assert!(matches!(stranger.broadcast(&unknown).await, Err(SendError::UnknownType { .. })));
}

#[tokio::test]
async fn every_event_arrives_in_order_though_credit_and_queue_are_small_and_the_reader_slow() {
    let small = Limits { event_credit_bytes: 1000, queued_per_peer_bytes: 2000, ..Limits::default() };
    let (one, other) = (endpoint_with("one", small.clone()), endpoint_with("other", small));
    let counts = other.subscribe(&[COUNT]).expect("known");
    join(&one, &other).await;
    one.wait_for_subscriber(COUNT).await;
    let sender = tokio::spawn({
        let one = one.clone();
        async move {
            for number in 0..5000 {
                one.broadcast(&counted(number)).await.expect("sent");
            }
        }
    });
    for number in 0..5000 {
        assert_eq!(number_of(&counts.recv().await.expect("an event")), number);
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    sender.await.expect("all sent");
    let (sent, received) = (one.counters(), other.counters());
    assert_eq!((sent.sent_events, received.received_events, received.skipped), (5000, 5000, 0));
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_waits_while_the_queue_is_full_and_goes_on_when_credit_comes() {
    let one =
        endpoint_with("one", Limits { queued_per_peer_bytes: 80, keepalive: Duration::ZERO, ..Limits::default() });
    let other =
        endpoint_with("other", Limits { event_credit_bytes: 40, keepalive: Duration::ZERO, ..Limits::default() });
    let counts = other.subscribe(&[COUNT]).expect("known");
    join(&one, &other).await;
    one.wait_for_subscriber(COUNT).await;
    // One frame of 40 bytes goes, two fill the queue.
    for number in 0..3 {
        one.broadcast(&counted(number)).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (event, more) = (counted(3), Duration::from_secs(3));
    assert!(tokio::time::timeout(more, one.broadcast(&event)).await.is_err(), "the queue should be full");
    assert!(one.is_waiting_for_credit());
    assert_eq!(one.counters().sent_events, 1);
    let waiting = tokio::spawn({
        let one = one.clone();
        async move { one.broadcast(&counted(4)).await }
    });
    for number in [0, 1, 2, 4] {
        assert_eq!(number_of(&counts.recv().await.expect("an event")), number);
    }
    assert_eq!(waiting.await.expect("ended").expect("sent"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_peer_that_takes_nothing_for_five_seconds_is_disconnected_but_its_pings_do_not_save_it() {
    let limits = Limits { queued_per_peer_bytes: 40, keepalive: Duration::ZERO, ..Limits::default() };
    let one = endpoint_with("one", limits);
    let mut notices = one.notices();
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[BLOB]).await;
    wait_for(&mut notices, |notice| matches!(notice, Notice::Up { .. })).await;
    // The first takes all the credit that the hello granted, the second fills the queue, the third waits.
    one.broadcast(&blob_of(1_000_000)).await.expect("sent");
    raw.until("event").await;
    one.broadcast(&blob_of(100)).await.expect("queued");
    let start = tokio::time::Instant::now();
    let waiting = tokio::spawn({
        let one = one.clone();
        async move { one.broadcast(&blob_of(100)).await }
    });
    let goodbye = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        raw.control(json!({"ping": null})).await;
        let said = raw.next().await.expect("a pong or a goodbye");
        if let Some(goodbye) = said.get("goodbye") {
            break goodbye.clone();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "the pings keep it");
    };
    assert_eq!(goodbye["code"], "tooSlow");
    let waited = start.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(7)).contains(&waited), "{waited:?}");
    waiting.await.expect("ended").expect("given up, which is no error of the event");
}

/// An endpoint with a full queue for a peer that has no credit left, and a broadcast that waits for room in it.
async fn full() -> (Endpoint, Handling, Raw, tokio::task::JoinHandle<Result<usize, SendError>>) {
    let limits = Limits { queued_per_peer_bytes: 40, keepalive: Duration::ZERO, ..Limits::default() };
    let one = endpoint_with("one", limits);
    let answers = |_| async { Ok::<_, String>(Content::build::<answer::Owned>(|_| ())) };
    let handling = one.handle::<ask::Owned, _, _, _>(answers).expect("known");
    let mut notices = one.notices();
    let mut raw = Raw::to(&one);
    raw.come_up("raw", 1, &[BLOB]).await;
    raw.control(json!({"subscriptionsAck": {"sequence": "1"}})).await;
    wait_for(&mut notices, |notice| matches!(notice, Notice::Up { .. })).await;
    // The first takes all the credit that the hello granted and 40 bytes more, the second fills the queue.
    one.broadcast(&blob_of(1_000_000)).await.expect("sent");
    raw.until("event").await;
    one.broadcast(&blob_of(100)).await.expect("queued");
    let waiting = tokio::spawn({
        let one = one.clone();
        async move { one.broadcast(&blob_of(100)).await }
    });
    (one, handling, raw, waiting)
}

#[tokio::test(start_paused = true)]
async fn a_full_peer_that_takes_answers_and_no_events_is_too_slow_all_the_same() {
    let (_one, _handling, mut raw, waiting) = full().await;
    let start = tokio::time::Instant::now();
    let mut number = 0;
    let goodbye = loop {
        number += 1;
        raw.frame(FrameKind::Request, 2, number, &question(number)).await;
        let said = raw.next().await.expect("a response or a goodbye");
        if let Some(goodbye) = said.get("goodbye") {
            break goodbye.clone();
        }
        assert_eq!(said, json!({"response": number}));
        assert!(start.elapsed() < Duration::from_secs(20), "the answers keep it");
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(goodbye["code"], "tooSlow");
    assert!(number > 3, "only {number} requests");
    waiting.await.expect("ended").expect("given up, which is no error of the event");
}

#[tokio::test(start_paused = true)]
async fn a_full_peer_that_gives_credit_back_now_and_then_is_not_too_slow() {
    let (one, _handling, mut raw, waiting) = full().await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        raw.control(json!({"credit": {"events": "1", "requests": "0"}})).await;
    }
    assert!(!waiting.is_finished());
    assert_eq!(one.peers(), ["raw"]);
    raw.control(json!({"credit": {"events": "1000000", "requests": "0"}})).await;
    assert_eq!(waiting.await.expect("ended").expect("sent"), 1);
}

#[tokio::test]
async fn credit_comes_back_only_when_the_last_subscription_has_taken_the_event() {
    let (one, other) =
        (endpoint("one"), endpoint_with("other", Limits { event_credit_bytes: 40, ..Limits::default() }));
    let first = other.subscribe(&[COUNT]).expect("known");
    let second = other.subscribe(&[COUNT]).expect("known");
    join(&one, &other).await;
    one.wait_for_subscriber(COUNT).await;
    one.broadcast(&counted(1)).await.expect("sent");
    one.broadcast(&counted(2)).await.expect("queued");
    assert_eq!(number_of(&first.recv().await.expect("an event")), 1);
    // A round trip: what the peer would have sent because of the first is here.
    other.subscribe(&[BLOB]).expect("known").acknowledged().wait().await;
    assert_eq!(one.counters().sent_events, 1);
    assert_eq!(number_of(&second.recv().await.expect("an event")), 1);
    assert_eq!(number_of(&first.recv().await.expect("an event")), 2);
}

#[tokio::test]
async fn after_an_acknowledged_unsubscription_nothing_arrives_and_other_types_do() {
    let (one, other) = (endpoint("one"), endpoint("other"));
    let events = other.subscribe(&[COUNT, BLOB]).expect("known");
    join(&one, &other).await;
    one.wait_for_subscriber(COUNT).await;
    one.broadcast(&counted(1)).await.expect("sent");
    while other.counters().received_events == 0 {
        tokio::task::yield_now().await;
    }
    events.remove(&[COUNT]).wait().await;
    assert_eq!(one.broadcast(&counted(2)).await.expect("no error"), 0);
    one.broadcast(&blob_of(3)).await.expect("sent");
    assert_eq!(events.recv().await.expect("an event").type_id(), BLOB);
    assert!(events.try_recv().is_none());
}

#[tokio::test]
async fn a_dropped_subscription_is_told_to_the_peer() {
    let (one, other) = (endpoint("one"), endpoint("other"));
    let mut notices = one.notices();
    let events = other.subscribe(&[COUNT]).expect("known");
    join(&one, &other).await;
    let fits = |notice: &Notice| matches!(notice, Notice::PeerSubscribed { type_id, .. } if *type_id == COUNT);
    wait_for(&mut notices, fits).await;
    drop(events);
    let fits = |notice: &Notice| matches!(notice, Notice::PeerUnsubscribed { type_id, .. } if *type_id == COUNT);
    wait_for(&mut notices, fits).await;
}

#[tokio::test]
async fn a_type_that_was_not_in_hello_is_declared_when_it_is_needed() {
    let (one, other) = (endpoint("one"), endpoint("other"));
    join(&one, &other).await;
    let events = other.subscribe(&[type_id::<late::Owned>()]).expect("known");
    events.acknowledged().wait().await;
    let late = Content::build::<late::Owned>(|mut late| late.set_text("at last"));
    assert_eq!(one.broadcast(&late).await.expect("sent"), 1);
    let event = events.recv().await.expect("an event");
    let reader = event.read::<late::Owned>().expect("a Late");
    let text = reader.get().and_then(|late| late.get_text()).expect("readable");
    assert_eq!(text, "at last");
}

#[tokio::test]
async fn a_subscription_to_all_gets_every_known_type_once() {
    let (one, other) = (endpoint("one"), endpoint("other"));
    let events = other.subscribe_to_all();
    drop(events.add(&[COUNT]).expect("known"));
    join(&one, &other).await;
    one.wait_for_subscriber(BLOB).await;
    one.broadcast(&counted(1)).await.expect("sent");
    one.broadcast(&blob_of(1)).await.expect("sent");
    assert_eq!(events.recv().await.expect("an event").type_id(), COUNT);
    assert_eq!(events.recv().await.expect("an event").type_id(), BLOB);
    assert!(events.try_recv().is_none());
}

#[tokio::test]
async fn an_event_over_one_peers_limit_reaches_the_others_and_fails_if_there_are_none() {
    let one = endpoint("one");
    let small = endpoint_with("small", Limits { frame_bytes: 1024, ..Limits::default() });
    let limited = small.subscribe(&[BLOB]).expect("known");
    join(&small, &one).await;
    one.wait_for_subscriber(BLOB).await;
    let error = one.broadcast(&blob_of(2000)).await.expect_err("too large");
    assert!(matches!(&error, SendError::FrameTooLarge { limit: 1024, peer, .. } if peer == "small"), "{error}");
    let fitting = blob_of(976);
    assert_eq!((fitting.frame_size(), one.broadcast(&fitting).await.expect("sent")), (1024, 1));
    assert_eq!(limited.recv().await.expect("an event").frame_size(), 1024);
    let large = endpoint("large");
    let events = large.subscribe(&[BLOB]).expect("known");
    join(&large, &one).await;
    events.acknowledged().wait().await;
    assert_eq!(one.broadcast(&blob_of(2000)).await.expect("sent"), 1);
    assert_eq!(events.recv().await.expect("an event").type_id(), BLOB);
}

#[tokio::test]
async fn a_type_with_another_layout_is_disabled_by_name_and_the_rest_goes_on() {
    let mut row = Row::unchecked(COUNT, "theirs.capnp:Count");
    row.layout = vec![1];
    let other = Endpoint::builder("other").types([row, Row::unchecked(BLOB, "theirs.capnp:Blob")]).build().expect("ok");
    let one = endpoint("one");
    let mut notices = one.notices();
    let events = other.subscribe(&[COUNT, BLOB]).expect("known");
    join(&one, &other).await;
    let notice = wait_for(&mut notices, |notice| matches!(notice, Notice::Disabled { .. })).await;
    let Notice::Disabled { type_id, reason, .. } = notice else { unreachable!() };
    assert_eq!(type_id, COUNT);
    assert!(reason.contains("@0") && reason.contains("theirs.capnp:Count"), "{reason}");
    one.wait_for_subscriber(BLOB).await;
    assert_eq!(one.broadcast(&counted(1)).await.expect("no error"), 0);
    assert_eq!(one.broadcast(&blob_of(1)).await.expect("sent"), 1);
    assert_eq!(events.recv().await.expect("an event").type_id(), BLOB);
}

#[tokio::test]
async fn an_opaque_type_carries_its_bytes() {
    let row = || Row::opaque(0x9000_0000_0000_0001, "Own");
    let one = Endpoint::builder("one").types([row()]).build().expect("ok");
    let other = Endpoint::builder("other").types([row()]).build().expect("ok");
    let events = other.subscribe(&[row().type_id]).expect("known");
    join(&one, &other).await;
    one.wait_for_subscriber(row().type_id).await;
    one.broadcast(&Content::opaque(row().type_id, b"any bytes")).await.expect("sent");
    assert_eq!(events.recv().await.expect("an event").opaque_data().expect("readable"), b"any bytes");
}

#[tokio::test]
async fn stopping_sends_what_is_queued_and_ends_subscriptions() {
    let (one, other) = (endpoint("one"), endpoint("other"));
    let events = other.subscribe(&[COUNT]).expect("known");
    let mut notices = other.notices();
    join(&one, &other).await;
    one.wait_for_subscriber(COUNT).await;
    let own = one.subscribe(&[BLOB]).expect("known");
    for number in 0..100 {
        one.broadcast(&counted(number)).await.expect("queued");
    }
    tokio::time::timeout(LONG, one.stop()).await.expect("stops");
    for number in 0..100 {
        assert_eq!(number_of(&events.recv().await.expect("an event")), number);
    }
    let fits = |notice: &Notice| matches!(notice, Notice::Down { ending, .. } if ending.code == Some(GoodbyeCode::Shutdown) && ending.by_peer);
    wait_for(&mut notices, fits).await;
    assert!(own.recv().await.is_none());
    assert!(matches!(one.broadcast(&counted(1)).await, Err(SendError::Stopped)));
}

#[tokio::test]
async fn dropping_the_last_handle_says_goodbye() {
    let (one, other) = (endpoint("one"), endpoint("other"));
    let mut notices = other.notices();
    join(&one, &other).await;
    drop(one);
    let fits =
        |notice: &Notice| matches!(notice, Notice::Down { ending, .. } if ending.code == Some(GoodbyeCode::Shutdown));
    wait_for(&mut notices, fits).await;
}

#[tokio::test]
async fn a_table_that_does_not_fit_into_one_message_is_declared_in_several() {
    let rows = || (1..=20_000u64).map(|id| Row::unchecked(1 << 63 | id, format!("a name as long as usual {id}")));
    let one = Endpoint::builder("one").types(rows()).build().expect("ok");
    let other = Endpoint::builder("other").types(rows()).build().expect("ok");
    let all: Vec<u64> = rows().map(|row| row.type_id).collect();
    let events = other.subscribe(&all).expect("known");
    join(&one, &other).await;
    let last = *all.last().expect("some");
    one.wait_for_subscriber(last).await;
    let mut message = capnp::message::Builder::new_default();
    message.init_root::<late::Builder<'_>>();
    one.broadcast(&Content::from_message(last, &message)).await.expect("sent");
    assert_eq!(events.recv().await.expect("an event").type_id(), last);
}

#[tokio::test]
async fn a_loop_of_broadcasts_lets_other_tasks_run() {
    let one = endpoint("one");
    let is_done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    tokio::spawn({
        let is_done = is_done.clone();
        async move { is_done.store(true, std::sync::atomic::Ordering::Relaxed) }
    });
    for _ in 0..1_000_000 {
        if is_done.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        one.broadcast(&counted(1)).await.expect("nobody wants it");
    }
    panic!("the other task did not run");
}
