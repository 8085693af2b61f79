//! `--metrics`: what the bus counts, over HTTP, in the text format of Prometheus.
//!
//! Counted is what happens anyway; it is only put into words when somebody asks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use stdiobus::StdioBus;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::args::TcpAddress;
use crate::log::Log;

/// Connections that are served at once; more wait.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The page, where it is wanted.
#[derive(Debug)]
pub(crate) struct Metrics {
    address: Option<SocketAddr>,
}

impl Metrics {
    /// Serves the page from now on. The error is for the user.
    pub(crate) async fn open(at: Option<&TcpAddress>, bus: &StdioBus) -> Result<Self, String> {
        let Some(at) = at else {
            return Ok(Self { address: None });
        };
        let failed = |error: &dyn std::fmt::Display| format!("--metrics {at}: {error}");
        let listener = TcpListener::bind((at.host.as_str(), at.port));
        let listener = listener.await.map_err(|e| failed(&e))?;
        let address = listener.local_addr().map_err(|e| failed(&e))?;
        let page = Page {
            bus: bus.clone(),
            recorded: PrometheusBuilder::new()
                .install_recorder()
                .map_err(|e| failed(&e))?,
        };
        tokio::spawn(serve(listener, page));
        Ok(Self {
            address: Some(address),
        })
    }

    pub(crate) fn announce(&self, log: &Log) {
        if let Some(address) = self.address {
            log.info(format_args!("metrics on http://{address}/metrics"));
        }
    }
}

async fn serve(listener: TcpListener, page: Page) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = serve_connection(stream, page.clone());
                connections.spawn(tokio::time::timeout(CONNECTION_TIMEOUT, connection));
            }
            // Out of descriptors, or the client was faster: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, page: Page) {
    let service = service_fn(|request| page.answer(request));
    // What goes wrong here is the client's affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[derive(Clone)]
struct Page {
    bus: StdioBus,
    recorded: PrometheusHandle,
}

impl Page {
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let found = request.uri().path() == "/metrics";
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        Ok(match (found, read) {
            (true, true) => self.render().await,
            (true, false) => not_allowed(),
            (false, _) => text(StatusCode::NOT_FOUND, "try /metrics\n"),
        })
    }

    async fn render(&self) -> Response<Full<Bytes>> {
        if let Err(error) = self.bus.publish_metrics().await {
            return text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"));
        }
        self.recorded.run_upkeep();
        let mut response = text(StatusCode::OK, self.recorded.render());
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    let allowed = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(ALLOW, allowed);
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
