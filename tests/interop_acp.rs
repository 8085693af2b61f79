//! The official Rust SDK of ACP, as the client of an agent on the official Python SDK behind the bus.

mod common;

use std::sync::{Arc, Mutex};

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    CancelNotification, ClientCapabilities, ContentBlock, FileSystemCapabilities,
    InitializeRequest, NewSessionRequest, PromptRequest, PromptResponse, ReadTextFileRequest,
    ReadTextFileResponse, RequestPermissionOutcome, RequestPermissionRequest,
    RequestPermissionResponse, SelectedPermissionOutcome, SessionId, SessionNotification,
    SessionUpdate, StopReason, TextContent,
};
use agent_client_protocol::{Agent, ByteStreams, Client, Error};
use common::client::{serving, soon};
use common::peer::*;
use common::{TempDir, alone_async, python};
use stdiobus::StdioBus;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

/// The text of the agent's chunks, with their sessions.
type Chunks = Arc<Mutex<Vec<(SessionId, String)>>>;

/// A whole conversation, over any connection to the bus.
async fn converse<S>(stream: S, option: &'static str) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let chunks = Chunks::default();
    let sink = chunks.clone();
    let (read, write) = tokio::io::split(stream);
    Client
        .v1()
        .on_receive_notification(
            async move |note: SessionNotification, _connection| {
                if let SessionUpdate::AgentMessageChunk(chunk) = note.update
                    && let ContentBlock::Text(text) = chunk.content
                {
                    sink.lock()
                        .expect("no panic")
                        .push((note.session_id, text.text));
                }
                Ok(())
            },
            agent_client_protocol::on_receive_notification!(),
        )
        .on_receive_request(
            async move |_: RequestPermissionRequest, responder, _connection| {
                let selected = SelectedPermissionOutcome::new(option);
                let outcome = RequestPermissionOutcome::Selected(selected);
                responder.respond(RequestPermissionResponse::new(outcome))
            },
            agent_client_protocol::on_receive_request!(),
        )
        .on_receive_request(
            async move |request: ReadTextFileRequest, responder, _connection| {
                let content = format!("{} by {option}", request.path.display());
                responder.respond(ReadTextFileResponse::new(content))
            },
            agent_client_protocol::on_receive_request!(),
        )
        .connect_with(
            ByteStreams::new(write.compat_write(), read.compat()),
            async move |connection: ConnectionTo<Agent>| talk(connection, chunks, option).await,
        )
        .await
}

async fn talk(
    connection: ConnectionTo<Agent>,
    chunks: Chunks,
    option: &'static str,
) -> Result<(), Error> {
    let files = FileSystemCapabilities::new().read_text_file(true);
    let hello = InitializeRequest::new(ProtocolVersion::V1)
        .client_capabilities(ClientCapabilities::new().fs(files));
    let answer = connection.send_request(hello).block_task().await?;
    assert_eq!(answer.protocol_version, ProtocolVersion::V1);

    let mut sessions = Vec::new();
    for _ in 0..3 {
        let new = connection.send_request(NewSessionRequest::new("/tmp"));
        sessions.push(new.block_task().await?.session_id);
    }
    let prompt = |session: &SessionId, text: &str| {
        let text = ContentBlock::Text(TextContent::new(text));
        let request = PromptRequest::new(session.clone(), vec![text]);
        connection.send_request(request).block_task()
    };
    let said = |session: &SessionId| {
        let mut chunks = chunks.lock().expect("no panic");
        let (own, others) = std::mem::take(&mut *chunks)
            .into_iter()
            .partition(|(whose, _)| whose == session);
        *chunks = others;
        let own: Vec<(SessionId, String)> = own;
        own.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
    };
    let ended = |answer: PromptResponse, reason: StopReason| assert_eq!(answer.stop_reason, reason);

    // three streams at once
    let (a, b, c) = tokio::join!(
        prompt(&sessions[0], "stream 300"),
        prompt(&sessions[1], "stream 300"),
        prompt(&sessions[2], "stream 300")
    );
    for answer in [a, b, c] {
        ended(answer?, StopReason::EndTurn);
    }
    for session in &sessions {
        let wanted: Vec<_> = (0..300).map(|i| format!("[{session}:{i}]")).collect();
        assert_eq!(said(session), wanted);
    }

    // what the agent asks, while another session streams
    let (stream, permission) = tokio::join!(
        prompt(&sessions[0], "stream 300"),
        prompt(&sessions[1], "perm")
    );
    ended(stream?, StopReason::EndTurn);
    ended(permission?, StopReason::EndTurn);
    assert_eq!(said(&sessions[1]), [format!("outcome=selected:{option}")]);
    assert_eq!(said(&sessions[0]).len(), 300);
    ended(
        prompt(&sessions[2], "read /etc/motto").await?,
        StopReason::EndTurn,
    );
    assert_eq!(said(&sessions[2]), [format!("/etc/motto by {option}")]);

    // a turn that is cancelled, and the one after it
    let slow = prompt(&sessions[0], "slow 60");
    connection.send_notification(CancelNotification::new(sessions[0].clone()))?;
    ended(slow.await?, StopReason::Cancelled);
    ended(prompt(&sessions[0], "after it").await?, StopReason::EndTurn);
    assert_eq!(said(&sessions[0]), ["after it"]);
    let left = chunks.lock().expect("no panic").clone();
    assert!(left.is_empty(), "of no session of this client: {left:?}");
    Ok(())
}

#[test]
fn the_acp_crate_drives_an_agent_through_sockets() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let (log, dir) = (Log::new(), TempDir::new());
        let pool = python_pool(&python, "agent", "acp_agent.py", 1, &log);
        let (bus, unix, tcp) = serving(config(&[pool]), &dir).await;
        let (unix, tcp) = tokio::join!(
            soon("the talk over a Unix socket", converse(unix, "ok")),
            soon("the talk over TCP", converse(tcp, "no"))
        );
        unix.expect("the talk over a Unix socket");
        tcp.expect("the talk over TCP");
        assert_eq!(log.pids().len(), 1);
        assert_eq!(
            log.with_method("initialize").len(),
            1,
            "one agent, one handshake"
        );
        bus.stop().await.expect("stops");
    });
}

#[test]
fn the_acp_crate_drives_an_agent_inside_the_process() {
    let Some(python) = python(&[ACP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let log = Log::new();
        let pool = python_pool(&python, "agent", "acp_agent.py", 1, &log);
        let bus = StdioBus::builder()
            .config_json(config(&[pool]))
            .build()
            .expect("valid");
        bus.start().await.expect("starts");
        let one = bus.connect_io(Some("agent")).await.expect("a stream");
        let other = bus.connect_io(None).await.expect("a stream");
        let (one, other) = tokio::join!(
            soon("one talk", converse(one, "ok")),
            soon("the other talk", converse(other, "no"))
        );
        one.expect("one talk");
        other.expect("the other talk");
        assert_eq!(
            log.with_method("initialize").len(),
            1,
            "one agent, one handshake"
        );
        bus.stop().await.expect("stops");
    });
}
