//! The official Rust SDK of MCP, as the client of servers on the official Python SDK behind the bus.

#![allow(deprecated)] // sampling and roots, which servers of the handshake era ask for

mod common;

use std::path::Path;
use std::time::Duration;

use common::client::{serving, soon};
use common::peer::*;
use common::{Client, TempDir, alone_async, python};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
    CreateMessageRequestParams, CreateMessageResult, Implementation, ListRootsResult,
    ProgressNotificationParam, ProtocolVersion, Root, SamplingMessage, ServerResult,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RequestContext, RunningService};
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt, ErrorData, RoleClient, ServiceError,
};
use serde_json::{Value, json};
use stdiobus::StdioBus;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

/// A client that has a model and roots, both of which say whose they are.
struct Handler {
    name: String,
    progress: mpsc::UnboundedSender<f64>,
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let capabilities: ClientCapabilities =
            serde_json::from_value(json!({"roots": {}, "sampling": {}})).expect("capabilities");
        ClientConfig::new(capabilities, Implementation::new(self.name.clone(), "1"))
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let asked = serde_json::to_value(&params.messages).expect("messages");
        let asked = asked[0]["content"]["text"]
            .as_str()
            .unwrap_or("something else")
            .to_owned();
        let text = format!("{} was asked {asked}", self.name);
        let message = SamplingMessage::assistant_text(text);
        Ok(CreateMessageResult::new(message, "a model".to_owned()))
    }

    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<ListRootsResult, ErrorData> {
        let root = Root::new(format!("file:///{}", self.name));
        Ok(ListRootsResult::new(vec![root]))
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.progress.send(params.progress).ok();
    }
}

struct Driver {
    name: String,
    service: RunningService<RoleClient, Handler>,
    progress: mpsc::UnboundedReceiver<f64>,
}

impl Driver {
    async fn connect<S>(stream: S, name: &str, mode: ClientLifecycleMode) -> Driver
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, progress) = mpsc::unbounded_channel();
        let handler = Handler {
            name: name.to_owned(),
            progress: sender,
        };
        let service = soon(
            &format!("the start of {name}"),
            handler.serve_with_lifecycle(stream, mode),
        )
        .await
        .unwrap_or_else(|error| panic!("{name} can't start: {error}"));
        Driver {
            name: name.to_owned(),
            service,
            progress,
        }
    }

    fn params(tool: &'static str, arguments: Value) -> CallToolRequestParams {
        let Value::Object(arguments) = arguments else {
            panic!("arguments are an object");
        };
        CallToolRequestParams::new(tool).with_arguments(arguments)
    }

    async fn call(&self, tool: &'static str, arguments: Value) -> String {
        let what = format!("{}: {tool}", self.name);
        let result = soon(&what, self.service.call_tool(Self::params(tool, arguments))).await;
        let result = result.unwrap_or_else(|error| panic!("{what}: {error}"));
        let result = serde_json::to_value(result).expect("a result");
        tool_text(&result).to_owned()
    }

    async fn lists_tools(&self) {
        let tools = soon("tools/list", self.service.list_all_tools()).await;
        let tools = tools.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert!(tools.iter().any(|tool| tool.name == "steps"), "{tools:?}");
    }

    async fn follows_progress(&mut self, steps: u32) {
        let said = self.call("steps", json!({"n": steps})).await;
        assert_eq!(said, format!("{steps} steps"));
        // the SDK hands each notification to a task of its own, so the order here says nothing
        let mut got = Vec::new();
        for step in 1..=steps {
            let what = format!("{}: {step} of {steps} notifications", self.name);
            got.extend(soon(&what, self.progress.recv()).await);
        }
        got.sort_by(f64::total_cmp);
        let wanted: Vec<_> = (1..=steps).map(f64::from).collect();
        assert_eq!(got, wanted, "{}", self.name);
        assert!(
            self.progress.is_empty(),
            "{}: progress of others",
            self.name
        );
    }

    /// Cancels a call that is under way; the client is free at once, and so is the server.
    async fn cancels(&mut self) {
        let request =
            ClientRequest::CallToolRequest(CallToolRequest::new(Self::params("hold", json!({}))));
        let handle = self
            .service
            .send_cancellable_request(request, PeerRequestOptions::no_options())
            .await
            .expect("the call is sent");
        let begun = soon("the call is under way", self.progress.recv()).await;
        assert_eq!(begun, Some(1.0));
        handle
            .cancel(Some("enough".to_owned()))
            .await
            .expect("the cancel is sent");
        assert_eq!(self.call("echo", json!({"text": "free"})).await, "free");
    }

    async fn answers_the_server(&self) {
        let said = self.call("sample", json!({"question": "who?"})).await;
        assert_eq!(said, format!("{} was asked who?", self.name));
        let said = self.call("roots", json!({})).await;
        assert_eq!(said, format!("file:///{}", self.name));
    }

    /// A call that takes too long for its client is cancelled by the SDK; the next goes through.
    async fn times_out(&mut self) {
        let mut options = PeerRequestOptions::no_options();
        options.timeout = Some(Duration::from_millis(200));
        let request =
            ClientRequest::CallToolRequest(CallToolRequest::new(Self::params("hold", json!({}))));
        let handle = self
            .service
            .send_cancellable_request(request, options)
            .await;
        let result: Result<ServerResult, _> =
            soon("the timeout", handle.expect("sent").await_response()).await;
        assert!(
            matches!(result, Err(ServiceError::Timeout { .. })),
            "{result:?}"
        );
        assert_eq!(soon("its progress", self.progress.recv()).await, Some(1.0));
        assert_eq!(self.call("echo", json!({"text": "next"})).await, "next");
    }

    async fn ends(self) {
        soon("the end of the client", self.service.cancel())
            .await
            .expect("it ends");
    }
}

/// A bus with two servers, a Unix and a TCP listener.
async fn two_servers(python: &Path, log: &Log, dir: &TempDir) -> (StdioBus, UnixStream, TcpStream) {
    let pool = python_pool(python, "server", "mcp_server.py", 2, log);
    serving(config(&[pool]), dir).await
}

/// What the handshake era offers, by two clients at once.
async fn handshake_era<A, B>(a: A, b: B, log: &Log)
where
    A: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mode = || ClientLifecycleMode::Initialize;
    let mut a = Driver::connect(a, "anna", mode()).await;
    let mut b = Driver::connect(b, "bert", mode()).await;
    for driver in [&a, &b] {
        driver.lists_tools().await;
    }
    let pids = [
        a.call("pid", json!({})).await,
        b.call("pid", json!({})).await,
    ];
    assert_ne!(pids[0], pids[1], "two clients share one server of two");
    tokio::join!(a.follows_progress(20), b.follows_progress(30));
    for _ in 0..3 {
        tokio::join!(a.answers_the_server(), b.answers_the_server());
    }
    tokio::join!(a.cancels(), b.cancels());
    tokio::join!(a.times_out(), b.times_out());
    let cancels = log.wait_for(4, "the cancels", |seen| seen.is("notifications/cancelled"));
    assert_cancels_name_calls(log, &cancels);
    assert_one_handshake_each(log);
    a.ends().await;
    b.ends().await;
}

/// Each cancel that a server read names a call of `hold` that the same server read.
fn assert_cancels_name_calls(log: &Log, cancels: &[Seen]) {
    for cancel in cancels {
        let id = cancel.json()["params"]["requestId"].clone();
        let named = log
            .of(cancel.pid)
            .into_iter()
            .find(|seen| seen.json()["id"] == id && seen.is("tools/call"));
        let named = named.unwrap_or_else(|| panic!("it names nothing: {}", cancel.line));
        assert_eq!(named.json()["params"]["name"], "hold", "{}", cancel.line);
    }
}

#[test]
fn rmcp_drives_two_servers_through_sockets_in_the_handshake_era() {
    let Some(python) = python(&[MCP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let (log, dir) = (Log::new(), TempDir::new());
        let (bus, unix, tcp) = two_servers(&python, &log, &dir).await;
        log.prepare(Client::unix(dir.path("bus.sock")), 2);
        handshake_era(unix, tcp, &log).await;
        bus.stop().await.expect("stops");
    });
}

/// What the stateless era offers, by two clients at once.
async fn stateless_era<A, B>(a: A, b: B, log: &Log)
where
    A: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mode = || ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
    };
    let mut a = Driver::connect(a, "anna", mode()).await;
    let mut b = Driver::connect(b, "bert", mode()).await;
    for driver in [&a, &b] {
        driver.lists_tools().await;
    }
    tokio::join!(a.follows_progress(20), b.follows_progress(30));
    tokio::join!(a.cancels(), b.cancels());
    tokio::join!(a.times_out(), b.times_out());
    let cancels = log.wait_for(4, "the cancels", |seen| seen.is("notifications/cancelled"));
    assert_cancels_name_calls(log, &cancels);
    assert!(
        log.with_method("initialize").is_empty(),
        "a handshake in the stateless era"
    );
    a.ends().await;
    b.ends().await;
}

#[test]
fn rmcp_drives_two_servers_through_sockets_in_the_stateless_era() {
    let Some(python) = python(&[MCP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let (log, dir) = (Log::new(), TempDir::new());
        let (bus, unix, tcp) = two_servers(&python, &log, &dir).await;
        stateless_era(unix, tcp, &log).await;
        bus.stop().await.expect("stops");
    });
}

#[test]
fn rmcp_drives_two_servers_inside_the_process_in_the_handshake_era() {
    let Some(python) = python(&[MCP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let (log, dir) = (Log::new(), TempDir::new());
        let (bus, _unix, _tcp) = two_servers(&python, &log, &dir).await;
        log.prepare(Client::unix(dir.path("bus.sock")), 2);
        let a = bus.connect_io(Some("server")).await.expect("a stream");
        let b = bus.connect_io(None).await.expect("a stream");
        handshake_era(a, b, &log).await;
        bus.stop().await.expect("stops");
    });
}

#[test]
fn rmcp_drives_two_servers_inside_the_process_in_the_stateless_era() {
    let Some(python) = python(&[MCP_SDK]) else {
        return;
    };
    alone_async(|| async move {
        let (log, dir) = (Log::new(), TempDir::new());
        let (bus, _unix, _tcp) = two_servers(&python, &log, &dir).await;
        let a = bus.connect_io(Some("server")).await.expect("a stream");
        let b = bus.connect_io(None).await.expect("a stream");
        stateless_era(a, b, &log).await;
        bus.stop().await.expect("stops");
    });
}
