//! What tests of the Rust client share.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use stdiobus::{
    Error, ErrorCode, Event, EventStream, ListenAddr, ListenMode, Overflow, RequestOptions,
    StdioBus,
};
use tokio::net::{TcpStream, UnixStream};

use super::{BOUND, TempDir, alone, open_tokios_sockets, zoo_pool};

/// [`alone`], where nobody may panic, be it on a thread that nobody joins.
#[track_caller]
pub fn alone_without_panics(test: impl FnOnce()) {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    open_tokios_sockets();
    alone(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            hook(panic);
        }));
        test();
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "somebody panicked");
    });
}

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

/// Options for a request that may wait for ever.
pub fn forever() -> RequestOptions {
    RequestOptions::new().timeout(None)
}

/// The error is that of everything that a stop ends.
#[track_caller]
pub fn assert_shutting_down(error: &Error) {
    assert_eq!(error.kind(), Some(ErrorCode::TransportError), "{error:?}");
    assert_eq!(error.to_string(), "bus is shutting down");
}

/// Polls a future once; nobody will wake whoever does so.
pub fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a future once, and drops it.
pub fn begin(future: impl Future) {
    let _ = poll_once(future);
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
