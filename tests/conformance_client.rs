//! Conformance numbers that need several clients, with the Rust client as one of them. The numbers are
//! those of CONFORMANCE.md.

mod common;

use std::collections::HashSet;

use common::peer::*;
use common::{Client, TempDir, alone_async};
use serde_json::{Value, json};
use stdiobus::{ListenMode, NotificationStream, StdioBus};

/// A running bus over puppets that speak MCP, its log, and a client on its socket.
async fn puppets(instances: usize) -> (StdioBus, Log, Peer, TempDir) {
    let (log, dir) = (Log::new(), TempDir::new());
    let pool = puppet_pool("puppets", "mcp", instances, &log, &[]);
    let socket = dir.path("bus.sock");
    let bus = StdioBus::builder()
        .config_json(config(&[pool]))
        .listen(ListenMode::unix(&socket))
        .build()
        .expect("valid");
    bus.start().await.expect("starts");
    let peer = Peer::new(Client::unix(socket));
    (bus, log, peer, dir)
}

async fn initialize(bus: &StdioBus) {
    let hello = mcp_initialize("rust", json!({}));
    let answer = bus.request("initialize", hello).await.expect("a handshake");
    assert!(answer["protocolVersion"].is_string(), "{answer}");
}

fn progress(n: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":$TOKEN,"progress":{n}}}}}"#
    )
}

/// A call that tells of its progress, waits for `notifications/go`, and answers with its token.
fn held_call() -> Value {
    let mut params = play(json!([
        progress(1),
        on(
            "notifications/go",
            json!([progress(2), answers("[$TOKEN]")])
        ),
    ]));
    params["_meta"] = json!({"progressToken": 0});
    params
}

async fn hears_progress(notes: &mut NotificationStream) {
    for n in [1, 2] {
        let note = notes.next().await.expect("progress");
        assert_eq!(note.method(), "notifications/progress");
        let params = note.params();
        assert_eq!(
            (&params["progressToken"], &params["progress"]),
            (&json!(0), &json!(n))
        );
    }
}

/// Number 10, and with it number 2: on the socket the ids count from 0, too.
#[test]
fn progress_reaches_the_rust_client_and_a_socket_client_that_use_the_same_token() {
    alone_async(|| async {
        let (bus, log, mut peer, _dir) = puppets(1).await;
        initialize(&bus).await;
        let mut notes = bus.subscribe_notifications();
        let own = bus.request("tools/call", held_call());
        let own = tokio::spawn(own);
        let (theirs, mut peer) = tokio::task::spawn_blocking(move || {
            peer.initialize_mcp();
            (peer.request("tools/call", held_call()), peer)
        })
        .await
        .expect("asked");
        let tokens: HashSet<_> = log
            .wait_for(2, "both calls", |seen| seen.is("tools/call"))
            .iter()
            .map(|seen| seen.json()["params"]["_meta"]["progressToken"].to_string())
            .collect();
        assert_eq!(tokens.len(), 2, "{tokens:?}");
        bus.notify("notifications/go", json!({}))
            .await
            .expect("sent");
        hears_progress(&mut notes).await;
        let answer = own.await.expect("no panic").expect("an answer");
        assert!(answer.is_array(), "{answer}");
        tokio::task::spawn_blocking(move || {
            assert!(peer.result(theirs).is_array());
            let heard: Vec<_> = peer
                .kept()
                .iter()
                .map(|note| note["params"].clone())
                .collect();
            let wanted = [1, 2].map(|n| json!({"progressToken": 0, "progress": n}));
            assert_eq!(heard, wanted);
        })
        .await
        .expect("the other client");
        bus.stop().await.expect("stops");
    });
}

/// Numbers 7 and 11: neither client initializes again, and a third one disturbs nobody.
#[test]
fn the_rust_client_goes_on_when_its_server_is_killed_and_another_client_joins() {
    alone_async(|| async {
        let (bus, log, mut peer, _dir) = puppets(1).await;
        initialize(&bus).await;
        let pid = bus.request("pid", json!({})).await.expect("an answer");
        let pid = pid.as_u64().expect("a number") as u32;
        let mut events = bus.events();
        kill_now(pid);
        while !matches!(
            events.next().await.expect("the bus runs"),
            stdiobus::Event::WorkerStopped { .. }
        ) {}
        let again = bus.request("pid", json!({})).await.expect("an answer");
        assert_ne!(again, json!(pid));
        let (theirs, own) = tokio::join!(
            tokio::task::spawn_blocking(move || {
                peer.initialize_mcp();
                peer.call("pid", json!({}))
            }),
            bus.request("pid", json!({}))
        );
        assert_eq!(theirs.expect("the other client"), again);
        assert_eq!(own.expect("an answer"), again);
        assert_one_handshake_each(&log);
        assert_eq!(log.pids().len(), 2);
        bus.stop().await.expect("stops");
    });
}
