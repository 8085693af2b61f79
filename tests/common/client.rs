//! What tests of the Rust client share.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use stdiobus::{
    Error, ErrorCode, Event, EventStream, ListenAddr, ListenMode, Overflow, RequestOptions,
    StdioBus,
};
use tokio::net::{TcpStream, UnixStream};

use super::{BOUND, TempDir, zoo_pool};

/// A running bus with one pool `zoo` of two workers.
pub async fn started(modes: &[&str]) -> StdioBus {
    let bus = StdioBus::builder()
        .pool(zoo_pool(modes).instances(2))
        .build()
        .expect("valid");
    bus.start().await.expect("starts");
    bus
}

/// Waits until the condition holds, within [`BOUND`].
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Who didn't keep up, by the events of a bus that has stopped.
pub async fn overflows(mut events: EventStream) -> Vec<Overflow> {
    let mut overflows = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::Overflow(overflow) = event {
            overflows.push(overflow);
        }
    }
    overflows
}

/// Bounds a wait by [`BOUND`], and says what it was for.
pub async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(BOUND, wait).await;
    result.unwrap_or_else(|_| panic!("not within {BOUND:?}: {what}"))
}

/// The error, which is of this kind.
#[track_caller]
pub fn assert_kind<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorCode) -> Error {
    let error = result.expect_err("an error");
    assert_eq!(error.kind(), Some(kind), "{error:?}");
    error
}

/// Options for a request that will not be answered.
pub fn short() -> RequestOptions {
    RequestOptions::new().timeout(Duration::from_millis(50))
}

/// Waits for a future on this thread, without any runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let deadline = Instant::now() + BOUND;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(Instant::now() < deadline, "not within {BOUND:?}");
        thread::park_timeout(BOUND);
    }
}

/// A running bus with this configuration, and a client on its Unix and on its TCP listener.
pub async fn serving(config: String, dir: &TempDir) -> (StdioBus, UnixStream, TcpStream) {
    let path = dir.path("bus.sock");
    let bus = StdioBus::builder()
        .config_json(config)
        .listen(ListenMode::unix(&path))
        .listen(ListenMode::tcp("127.0.0.1", 0))
        .build()
        .expect("valid");
    bus.start().await.expect("starts");
    let tcp = bus.listen_addrs().iter().find_map(ListenAddr::tcp);
    let unix = UnixStream::connect(path).await.expect("a Unix client");
    let tcp = TcpStream::connect(tcp.expect("a TCP listener"))
        .await
        .expect("a TCP client");
    (bus, unix, tcp)
}
