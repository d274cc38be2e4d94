//! Socket files.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use common::*;
use lahja_capn::ConnectError;

#[tokio::test]
async fn the_socket_is_for_this_user_alone_and_goes_with_its_guard() {
    let folder = Folder::new();
    let server = endpoint("server");
    let serving = server.serve(folder.socket()).await.expect("serves");
    let mode = std::fs::metadata(serving.path()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(serving);
    assert!(!folder.socket().exists());
    let error = endpoint("client").connect(folder.socket(), "server").await.expect_err("nobody is there");
    let text = error.to_string();
    assert!(text.contains("\"server\"") && text.contains("socket"), "{text}");
}

#[tokio::test]
async fn a_file_that_a_dead_process_left_is_replaced_and_a_living_one_is_not() {
    let folder = Folder::new();
    drop(UnixListener::bind(folder.socket()).expect("binds"));
    assert!(folder.socket().exists());
    let server = endpoint("server");
    let _serving = server.serve(folder.socket()).await.expect("replaces it");
    let second = endpoint("second").serve(folder.socket()).await;
    assert!(matches!(second.err(), Some(ConnectError::InUse { .. })));
    endpoint("client").connect(folder.socket(), "server").await.expect("the first one still serves");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    std::fs::write(folder.socket(), "precious").expect("writes");
    assert!(endpoint("server").serve(folder.socket()).await.is_err());
    assert_eq!(std::fs::read_to_string(folder.socket()).expect("reads"), "precious");
}

#[tokio::test]
async fn the_guard_leaves_a_file_alone_that_another_process_put_in_its_place() {
    let folder = Folder::new();
    let server = endpoint("server");
    let serving = server.serve(folder.socket()).await.expect("serves");
    std::fs::rename(folder.socket(), folder.0.join("moved")).expect("moves");
    let _other = UnixListener::bind(folder.socket()).expect("binds");
    drop(serving);
    assert!(folder.socket().exists());
}

#[tokio::test]
async fn a_stopped_endpoint_accepts_nobody() {
    let folder = Folder::new();
    let server = endpoint("server");
    let _serving = server.serve(folder.socket()).await.expect("serves");
    server.stop().await;
    let result = tokio::time::timeout(LONG, endpoint("client").connect(folder.socket(), "server")).await;
    assert!(result.expect("does not hang").is_err());
}
