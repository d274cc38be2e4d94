//! Requests between endpoints.

mod common;

use std::time::Duration;

use common::*;
use conformance::conformance_capnp::{answer, ask, blob};
use lahja_capn::wire::FrameKind;
use lahja_capn::{type_id, Content, Endpoint, FailedCode, Limits, Notice, RequestError, SendError};
use serde_json::json;

fn answered(number: u64) -> Content {
    Content::build::<answer::Owned>(|mut answer| answer.set_number(number))
}

async fn ask_for(endpoint: &Endpoint, number: u64) -> Result<u64, RequestError> {
    let reply = endpoint.request::<answer::Owned>(&question(number), LONG).await?;
    let reader = reply.read();
    Ok(reader.get().expect("readable").get_number())
}

/// The two are connected, and the second one's requests are known to the first.
async fn pair() -> (Endpoint, Endpoint) {
    let (asker, responder) = (endpoint("asker"), endpoint("responder"));
    join(&asker, &responder).await;
    (asker, responder)
}

#[tokio::test]
async fn requests_are_answered_by_a_function_many_at_a_time() {
    let (asker, responder) = pair().await;
    let meeting = std::sync::Arc::new(tokio::sync::Barrier::new(50));
    let _handling = responder.handle::<ask::Owned, _, _, _>(move |event| {
        let meeting = meeting.clone();
        async move {
            let number = event.read::<ask::Owned>()?.get()?.get_number();
            // All fifty have to be at work at once for any of them to go on.
            meeting.wait().await;
            Ok::<_, lahja_capn::ReadError>(answered(number * 2))
        }
    });
    asker.wait_for_subscriber(ASK).await;
    let asks: Vec<_> = (0..50)
        .map(|number| {
            let asker = asker.clone();
            tokio::spawn(async move { ask_for(&asker, number).await })
        })
        .collect();
    for (number, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await.expect("ended").expect("answered"), number as u64 * 2);
    }
}

#[tokio::test]
async fn an_error_a_panic_and_a_dropped_request_are_answered_failed() {
    let (asker, responder) = pair().await;
    let _handling = responder.handle::<ask::Owned, _, _, _>(|event| async move {
        match event.read::<ask::Owned>().expect("an Ask").get().expect("readable").get_number() {
            1 => Err("no such thing".to_owned()),
            _ => panic!("this handler panics, and the test wants it"),
        }
    });
    asker.wait_for_subscriber(ASK).await;
    let Err(RequestError::Failed { peer, failure }) = ask_for(&asker, 1).await else { panic!("not failed") };
    assert_eq!(
        (peer.as_str(), failure.code, failure.text.as_str()),
        ("responder", FailedCode::HandlerRaised, "no such thing")
    );
    let Err(RequestError::Failed { failure, .. }) = ask_for(&asker, 2).await else { panic!("not failed") };
    assert_eq!(failure.type_name, "Dropped");
}

#[tokio::test]
async fn dropping_the_handler_fails_what_waits_and_nobody_is_asked_any_more() {
    let (asker, responder) = pair().await;
    let requests = responder.requests(&[ASK]).expect("known");
    assert!(matches!(responder.requests(&[ASK]), Err(SendError::HandlerExists { type_id: ASK })));
    requests.acknowledged().await;
    let mut notices = asker.notices();
    let waiting = tokio::spawn({
        let asker = asker.clone();
        async move { ask_for(&asker, 1).await }
    });
    while responder_got(&responder) == 0 {
        tokio::task::yield_now().await;
    }
    drop(requests);
    assert!(matches!(waiting.await.expect("ended"), Err(RequestError::Failed { .. })));
    wait_for(&mut notices, |notice| matches!(notice, Notice::PeerUnsubscribed { .. })).await;
    assert!(matches!(ask_for(&asker, 2).await, Err(RequestError::NoResponder { type_id: ASK })));
}

fn responder_got(responder: &Endpoint) -> u64 {
    responder.counters().received_requests
}

#[tokio::test(start_paused = true)]
async fn a_request_times_out_and_its_late_answer_is_counted() {
    let (asker, responder) = pair().await;
    let requests = responder.requests(&[ASK]).expect("known");
    requests.acknowledged().await;
    let patience = Duration::from_millis(700);
    let error = asker.request::<answer::Owned>(&question(1), patience).await.err().expect("nobody answers");
    assert!(matches!(error, RequestError::TimedOut(time) if time == patience), "{error}");
    requests.recv().await.expect("it had arrived").respond(&answered(2)).expect("known");
    // An ignored request is answered by nobody.
    let second = tokio::spawn({
        let asker = asker.clone();
        async move { asker.request::<answer::Owned>(&question(1), patience).await.map(|_| ()) }
    });
    requests.recv().await.expect("the second").ignore();
    assert!(matches!(second.await.expect("ended"), Err(RequestError::TimedOut(_))));
    assert_eq!(asker.counters().late, 1);
}

#[tokio::test]
async fn the_first_response_wins_and_one_failure_of_two_is_none() {
    let asker = endpoint("asker");
    let (fast, failing, silent) = (endpoint("fast"), endpoint("failing"), endpoint("silent"));
    let waits = silent.requests(&[ASK]).expect("known");
    let _fails = failing.handle::<ask::Owned, _, _, _>(|_| async { Err("never".to_owned()) });
    for responder in [&fast, &failing, &silent] {
        join(&asker, responder).await;
    }
    let requests = fast.requests(&[ASK]).expect("known");
    requests.acknowledged().await;
    let asking = tokio::spawn({
        let asker = asker.clone();
        async move { asker.request::<answer::Owned>(&question(1), LONG).await.expect("answered").origin().to_owned() }
    });
    requests.recv().await.expect("asked").respond(&answered(2)).expect("known");
    assert_eq!(asking.await.expect("ended"), "fast");
    // What the third says now is late.
    waits.recv().await.expect("asked, too").respond(&answered(3)).expect("known");
    while asker.counters().late == 0 {
        tokio::task::yield_now().await;
    }
    let only = asker.request_to::<answer::Owned>("failing", &question(1), LONG).await.map(|_| ());
    assert!(matches!(only, Err(RequestError::Failed { peer, .. }) if peer == "failing"));
}

#[tokio::test]
async fn a_request_is_lost_with_the_connection_unless_a_failure_says_more() {
    let (asker, responder) = pair().await;
    let requests = responder.requests(&[ASK]).expect("known");
    requests.acknowledged().await;
    let asking = tokio::spawn({
        let asker = asker.clone();
        async move { ask_for(&asker, 1).await }
    });
    let kept = requests.recv().await.expect("asked");
    responder.disconnect("asker");
    assert!(matches!(asking.await.expect("ended"), Err(RequestError::Lost { peer }) if peer == "responder"));
    drop(kept);
}

#[tokio::test]
async fn a_response_of_another_type_fails_the_request_only() {
    let (asker, responder) = pair().await;
    let requests = responder.requests(&[ASK]).expect("known");
    requests.acknowledged().await;
    let asking = tokio::spawn({
        let asker = asker.clone();
        async move { ask_for(&asker, 1).await }
    });
    let wrong = Content::build::<blob::Owned>(|mut blob| blob.set_id(1));
    requests.recv().await.expect("asked").respond(&wrong).expect("known");
    let error = asking.await.expect("ended").expect_err("the wrong type");
    assert!(matches!(error, RequestError::UnexpectedType { got: BLOB, .. }), "{error}");
    assert_eq!(asker.peers(), ["responder"]);
}

#[tokio::test]
async fn a_response_that_cannot_be_sent_becomes_a_failure() {
    let asker = endpoint_with("asker", Limits { frame_bytes: 1024, ..Limits::default() });
    let responder = endpoint("responder");
    let _handling = responder.handle::<ask::Owned, _, _, _>(|_| async {
        let long = "x".repeat(2000);
        Ok::<_, String>(Content::build::<answer::Owned>(|mut answer| answer.set_text(long)))
    });
    join(&asker, &responder).await;
    asker.wait_for_subscriber(ASK).await;
    let Err(RequestError::Failed { failure, .. }) = ask_for(&asker, 1).await else { panic!("not failed") };
    assert_eq!((failure.code, failure.type_name.as_str()), (FailedCode::HandlerRaised, "FrameTooLarge"));
}

#[tokio::test]
async fn requests_over_the_limit_of_open_ones_are_answered_overloaded_until_answers_are_sent() {
    let responder = endpoint_with("responder", Limits { open_requests: 2, ..Limits::default() });
    let requests = responder.requests(&[ASK]).expect("known");
    let mut raw = Raw::to(&responder);
    raw.come_up("raw", 1, &[]).await;
    for number in 1..=3 {
        raw.frame(FrameKind::Request, 2, number, &question(number)).await;
    }
    let failed = raw.until("failed").await;
    assert_eq!((&failed["correlation"], &failed["code"]), (&json!("3"), &json!("overloaded")));
    requests.recv().await.expect("the first").respond(&answered(1)).expect("known");
    assert_eq!(raw.until("response").await, 1);
    raw.frame(FrameKind::Request, 2, 4, &question(4)).await;
    requests.recv().await.expect("the second").fail("Error", "failed on purpose");
    assert_eq!(raw.until("failed").await["correlation"], "2");
    raw.frame(FrameKind::Request, 2, 5, &question(5)).await;
    requests.recv().await.expect("the fourth").ignore();
    raw.frame(FrameKind::Request, 2, 6, &question(6)).await;
    let two = [requests.recv().await.expect("the fifth"), requests.recv().await.expect("the sixth")];
    assert_eq!(two.map(|request| request.number()), [5, 6]);
}

#[tokio::test]
async fn a_request_that_waits_for_room_is_sent_when_there_is_some() {
    let asker = endpoint_with("asker", Limits { queued_per_peer_bytes: 40, ..Limits::default() });
    let responder = endpoint_with("responder", Limits { request_credit_bytes: 40, ..Limits::default() });
    let requests = responder.requests(&[ASK]).expect("known");
    join(&asker, &responder).await;
    asker.wait_for_subscriber(ASK).await;
    let asks: Vec<_> = (0..4)
        .map(|number| {
            let asker = asker.clone();
            tokio::spawn(async move { ask_for(&asker, number).await })
        })
        .collect();
    for _ in 0..4 {
        let request = requests.recv().await.expect("all four arrive");
        let number = request.read::<ask::Owned>().expect("an Ask").get().expect("readable").get_number();
        request.respond(&answered(number + 100)).expect("known");
    }
    for (number, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await.expect("ended").expect("answered"), number as u64 + 100);
    }
}

#[tokio::test]
async fn a_type_is_known_by_its_id() {
    assert_eq!(type_id::<ask::Owned>(), conformance::table::ASK_ROW.type_id);
}
