//! Where handlers of the user's run, and how workers' requests get there.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread;

use serde_json::Value;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::WeakBus;
use super::worker_request::WorkerRequest;
use crate::driver::{Asked, Command, Handle, LogLevel};
use crate::error::{Error, ErrorCode, Result, RpcError};

/// What a handler answers.
pub(super) type Answer = std::result::Result<Value, RpcError>;

/// The handler of workers' requests.
pub(super) type RequestHandler =
    Arc<dyn Fn(WorkerRequest) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// The runtime that handlers run on: the one that was there when the bus was
/// built, else the one that is there when one is needed, else one of the bus's
/// own, on a thread that ends with the bus.
#[derive(Debug)]
pub(super) struct Runtime {
    handle: Mutex<Option<runtime::Handle>>,
    /// Only ever the bus's own.
    own: bool,
}

impl Runtime {
    pub(super) fn current() -> Self {
        Self {
            handle: Mutex::new(runtime::Handle::try_current().ok()),
            own: false,
        }
    }

    /// For callers who block: the threads of their runtime may be those that wait.
    pub(super) fn own() -> Self {
        Self {
            handle: Mutex::new(None),
            own: true,
        }
    }

    pub(super) fn handle(&self, bus: &Handle) -> Result<runtime::Handle> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*handle {
            return Ok(handle.clone());
        }
        let found = match runtime::Handle::try_current() {
            Ok(current) if !self.own => current,
            _ => own_runtime(bus).map_err(|e| {
                Error::new(
                    ErrorCode::ResourceExhausted,
                    format!("no thread can be started for handlers: {e}"),
                )
                .with_source(e)
            })?,
        };
        *handle = Some(found.clone());
        Ok(found)
    }
}

fn own_runtime(bus: &Handle) -> std::io::Result<runtime::Handle> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    let (tell, ended) = oneshot::channel();
    thread::Builder::new()
        .name("stdiobus-handler".into())
        .spawn(move || {
            // An error says that the bus had ended already.
            let _ = runtime.block_on(ended);
            // Whatever a handler blocks on must not keep this thread.
            runtime.shutdown_background();
        })?;
    bus.send(Command::TellEnd { tell });
    Ok(handle)
}

/// Hands requests to the handler, each in a task of its own, until the bus has
/// ended; what still runs then is dropped.
pub(super) async fn serve(
    mut requests: mpsc::UnboundedReceiver<Asked>,
    handler: RequestHandler,
    bus: WeakBus,
    log: Handle,
) {
    let mut tasks = JoinSet::new();
    loop {
        // Either may be ready; both are asked each time.
        let asked = poll_fn(|cx| {
            while let Poll::Ready(Some(_)) = tasks.poll_join_next(cx) {}
            requests.poll_recv(cx)
        })
        .await;
        let Some(asked) = asked else { return };
        let (handler, bus, log) = (Arc::clone(&handler), bus.clone(), log.clone());
        tasks.spawn(async move { answer(asked, &handler, bus, &log).await });
    }
}

async fn answer(asked: Asked, handler: &RequestHandler, bus: WeakBus, log: &Handle) {
    if !asked.message.parts().readable {
        let error = RpcError::new(-32700, "Parse error");
        return asked.responder.answer(&Err(error));
    }
    let request = WorkerRequest::new(asked.message, bus);
    let method = request.method().to_owned();
    let outcome = match caught(|| handler(request)).await {
        Ok(outcome) => outcome,
        Err(panic) => {
            report(log, &format!("the handler of {method:?}"), &*panic);
            Err(RpcError::internal("The handler panicked"))
        }
    };
    asked.responder.answer(&outcome);
}

/// Runs what the user has given; what it panics with is an error.
pub(super) async fn caught<T>(
    start: impl FnOnce() -> Pin<Box<dyn Future<Output = T> + Send>>,
) -> std::result::Result<T, Box<dyn Any + Send>> {
    let mut running = catch_unwind(AssertUnwindSafe(start))?;
    // A future that has panicked is not polled again.
    poll_fn(
        move |cx| match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}

/// Logs that something of the user's panicked.
pub(super) fn report(log: &Handle, what: &str, panic: &(dyn Any + Send)) {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    log.send(Command::Log {
        level: LogLevel::Error,
        line: format!("{what} panicked: {text}"),
    });
}
