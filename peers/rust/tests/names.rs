//! Who may have a name; crossing and replaced connections. Time stands still but for what tests wait for.

mod common;

use std::time::Duration;

use common::*;
use lahja_capn::{ConnectError, Endpoint, GoodbyeCode, Notice};
use tokio::time::Instant;

fn code(result: Result<(), ConnectError>) -> Option<GoodbyeCode> {
    match result.expect_err("refused") {
        ConnectError::Refused { ending, .. } => ending.code,
        other => panic!("{other}"),
    }
}

async fn try_join(connector: &Endpoint, acceptor: &Endpoint, expect: &str) -> Result<(), ConnectError> {
    let (one, other) = tokio::io::duplex(1 << 16);
    let (reader, writer) = tokio::io::split(other);
    acceptor.accept_over(reader, writer).expect("the acceptor runs");
    let (reader, writer) = tokio::io::split(one);
    connector.connect_over(reader, writer, expect).await
}

#[tokio::test(start_paused = true)]
async fn a_second_claimant_is_refused_while_the_first_lives() {
    let (server, first, second) = (endpoint("server"), endpoint("twin"), endpoint("twin"));
    join(&first, &server).await;
    assert_eq!(code(try_join(&second, &server, "server").await), Some(GoodbyeCode::NameInUse));
    assert_eq!((server.peers(), first.peers()), (vec!["twin".to_owned()], vec!["server".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_silent_holder_loses_its_name_after_a_second_and_is_told() {
    let server = endpoint("server");
    let mut notices = server.notices();
    let mut silent = Raw::to(&server);
    silent.come_up("twin", 1, &[]).await;
    wait_for(&mut notices, |notice| matches!(notice, Notice::Up { .. })).await;
    let start = Instant::now();
    let second = endpoint("twin");
    try_join(&second, &server, "server").await.expect("takes the name over");
    let waited = start.elapsed();
    assert!((Duration::from_millis(1000)..Duration::from_millis(1100)).contains(&waited), "{waited:?}");
    silent.until("ping").await;
    assert_eq!(silent.until("goodbye").await["code"], "replaced");
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_that_goes_away_leaves_the_silent_holder_in_place() {
    let server = endpoint("server");
    let mut holder = Raw::to(&server);
    holder.come_up("twin", 1, &[]).await;
    let mut newcomer = Raw::to(&server);
    newcomer.hello("twin", 2).await;
    holder.until("ping").await;
    newcomer.end().await;
    drop(newcomer);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.peers(), ["twin"]);
    // It still gets what the endpoint says.
    assert_eq!(server.wait_for_reply(&mut holder).await, "pong");
}

/// What an endpoint answers to a ping.
trait Replies {
    async fn wait_for_reply(&self, raw: &mut Raw) -> &'static str;
}

impl Replies for Endpoint {
    async fn wait_for_reply(&self, raw: &mut Raw) -> &'static str {
        raw.control(serde_json::json!({"ping": null})).await;
        raw.until("pong").await;
        "pong"
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_ends_while_it_is_probed_makes_room_at_once() {
    let server = endpoint("server");
    let mut holder = Raw::to(&server);
    holder.come_up("twin", 1, &[]).await;
    let mut newcomer = Raw::to(&server);
    let start = Instant::now();
    newcomer.hello("twin", 2).await;
    holder.until("ping").await;
    holder.end().await;
    newcomer.until("subscriptions").await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn of_several_newcomers_one_is_accepted_and_the_next_meets_it_as_the_holder() {
    let server = endpoint("server");
    let mut holder = Raw::to(&server);
    holder.come_up("twin", 1, &[]).await;
    let (second, third) = (endpoint("twin"), endpoint("twin"));
    let results = tokio::join!(try_join(&second, &server, "server"), try_join(&third, &server, "server"));
    assert!(matches!(results, (Ok(()), Err(_)) | (Err(_), Ok(()))), "{results:?}");
    let refused = if results.0.is_ok() { results.1 } else { results.0 };
    assert_eq!(code(refused), Some(GoodbyeCode::NameInUse));
}

#[tokio::test(start_paused = true)]
async fn the_same_instance_connecting_again_replaces_its_older_connection() {
    let server = endpoint("server");
    let mut older = Raw::to(&server);
    older.come_up("twin", 1, &[]).await;
    let mut newer = Raw::to(&server);
    newer.come_up("twin", 1, &[]).await;
    assert_eq!(older.until("goodbye").await["code"], "replaced");
    assert_eq!(server.wait_for_reply(&mut newer).await, "pong");
    assert_eq!(server.peers(), ["twin"]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_reaches_itself_or_its_namesake_is_told() {
    let (one, namesake) = (endpoint("one"), endpoint("one"));
    assert_eq!(code(try_join(&one, &namesake, "one").await), Some(GoodbyeCode::NameInUse));
    let mut notices = one.notices();
    let result = try_join(&one, &one, "one").await;
    assert_eq!(code(result), Some(GoodbyeCode::Duplicate));
    wait_for(
        &mut notices,
        |notice| matches!(notice, Notice::Refused { ending, .. } if ending.code == Some(GoodbyeCode::Duplicate)),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_reaches_another_name_says_so() {
    let (one, other) = (endpoint("one"), endpoint("other"));
    assert_eq!(code(try_join(&one, &other, "somebody").await), Some(GoodbyeCode::WrongName));
}

#[tokio::test(start_paused = true)]
async fn two_endpoints_that_connect_to_each_other_at_once_end_with_one_connection() {
    // Both orders of names, and of who is first.
    for (one, other) in [("a", "b"), ("b", "a")] {
        let (one, other) = (endpoint(one), endpoint(other));
        let (mut at_one, mut at_other) = (one.notices(), other.notices());
        let (one_name, other_name) = (one.name(), other.name());
        let (first, second) = tokio::join!(try_join(&one, &other, &other_name), try_join(&other, &one, &one_name));
        first.expect("connected");
        second.expect("connected");
        assert_eq!((one.peers(), other.peers()), (vec![other_name], vec![one_name]));
        let ups = |notices: &mut lahja_capn::Notices| {
            std::iter::from_fn(|| notices.try_recv()).filter(|notice| matches!(notice, Notice::Up { .. })).count()
        };
        assert_eq!((ups(&mut at_one), ups(&mut at_other)), (1, 1));
        assert!(matches!(try_join(&one, &other, &other.name()).await, Err(ConnectError::AlreadyConnected { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn crossing_connections_of_which_one_is_held_leave_that_of_the_lower_name() {
    // The endpoint is "m"; a peer below it keeps the connection that it opened, one above loses its own.
    for (name, survives) in [("a", true), ("z", false)] {
        let server = endpoint("m");
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (reader, writer) = tokio::io::split(theirs);
        let connecting = tokio::spawn({
            let server = server.clone();
            async move { server.connect_over(reader, writer, name).await.map_err(|error| error.to_string()) }
        });
        let mut held = Raw::over(ours);
        held.until("hello").await;
        held.hello(name, 7).await;
        held.subscriptions(1, &[]).await;
        connecting.await.expect("ended").expect("up");
        let mut crossing = Raw::to(&server);
        crossing.hello(name, 7).await;
        let loser = if survives { &mut held } else { &mut crossing };
        assert_eq!(loser.until("goodbye").await["code"], "duplicate", "{name}");
        let winner = if survives { &mut crossing } else { &mut held };
        if survives {
            winner.until("subscriptions").await;
            winner.subscriptions(1, &[]).await;
        }
        assert_eq!(server.wait_for_reply(winner).await, "pong");
        assert_eq!(server.peers(), [name]);
    }
}

#[test]
fn a_name_is_what_the_wire_format_allows() {
    for name in ["a", "A9._-", "9", &"x".repeat(100)] {
        assert!(Endpoint::builder(name).build().is_ok(), "{name}");
    }
    for name in ["", ".a", "-a", "_a", "a b", "a/b", "ä", "a\n", &"x".repeat(101)] {
        assert!(Endpoint::builder(name).build().is_err(), "{name}");
    }
}
