//! Workers that live in this process.

use std::fmt;
use std::future::Future;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::serve::{Service, serve};
use super::{StdioBus, WeakBus, check_running};
use crate::backend::Registered;
use crate::driver::{Command, Handle};
use crate::error::{Error, ErrorCode, Result, RpcError};
use crate::native::{Embed, c_string};
use crate::rpc::{self, Parts, Route};

impl StdioBus {
    /// Adds a worker that lives in this process to a pool: an async function that
    /// is called with each message a child process of the pool would get, until
    /// the guard is dropped or the bus has ended.
    ///
    /// ```no_run
    /// # use serde_json::json;
    /// # use stdiobus::{RpcError, StdioBus};
    /// # async fn example(bus: StdioBus) -> stdiobus::Result<()> {
    /// let worker = bus
    ///     .register_worker("sums", |call| async move {
    ///         match call.method() {
    ///             "add" => {
    ///                 let (a, b): (i64, i64) = call.params_as()?;
    ///                 Ok(json!(a + b))
    ///             }
    ///             other => Err(RpcError::method_not_found(other)),
    ///         }
    ///     })
    ///     .await?;
    /// assert_eq!(bus.request("add", [1, 2]).await?, 3);
    /// # drop(worker);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It takes part in everything that goes for workers: it is chosen by load
    /// and by session, beside the pool's processes, and serves socket clients as
    /// well. In a pool that speaks MCP or ACP it is shaken hands with like any
    /// other, by a call `initialize`. It isn't started again: where it is gone,
    /// what it had not answered ends with `TransportError`. A call whose caller has
    /// given up goes on; under MCP and ACP the service is told, by a call of the
    /// protocol's cancellation.
    ///
    /// [`PoolConfig::in_process`](crate::PoolConfig::in_process) makes a pool for
    /// workers of this process and no other.
    ///
    /// Calls run at the same time, each in a task of its own, where
    /// [`on_request`](crate::StdioBusBuilder::on_request) handlers run; up to 1024
    /// of them, and while there are so many nothing more is read. What one panics
    /// with is caught and logged, and its caller gets error -32603. What runs when
    /// the bus ends, or the guard is dropped, is dropped.
    ///
    /// # Errors
    /// - `InvalidState`: the bus isn't running.
    /// - `InvalidArgument`: there is no such pool, or it is one whose workers
    ///   belong to one client each.
    /// - `Unavailable`: the system refuses to make two pairs of sockets.
    /// - `ResourceExhausted`: there is no tokio runtime, and no thread can be
    ///   started for one.
    ///
    /// # Panics
    /// If the tokio runtime it is to run on was built without I/O.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no worker behind.
    pub async fn register_worker<S, F>(&self, pool: &str, service: S) -> Result<WorkerGuard>
    where
        S: Fn(ServiceCall) -> F + Send + Sync + 'static,
        F: Future<Output = std::result::Result<Value, RpcError>> + Send + 'static,
    {
        let service: Service = Arc::new(move |call| Box::pin(service(call)));
        self.register_service(pool, service).await
    }

    async fn register_service(&self, pool: &str, service: Service) -> Result<WorkerGuard> {
        check_running(self.state())?;
        let handle = &self.owner.handle;
        let runtime = self.owner.runtime.handle(handle)?;
        // One each way, so that either end sees when the other has closed.
        let (calls, to_worker) = pair()?;
        let (answers, from_worker) = pair()?;
        let worker = Embed {
            to_worker: to_worker.into(),
            from_worker: from_worker.into(),
            pool: c_string("pool", pool)?,
        };
        let registered = self
            .ask(|reply| Command::Register { worker, reply })
            .await?;
        let guard = WorkerGuard {
            registered,
            handle: handle.clone(),
            kept: false,
        };
        let inside = runtime.enter();
        let calls = UnixStream::from_std(calls).map_err(refused)?;
        let answers = UnixStream::from_std(answers).map_err(refused)?;
        drop(inside);
        let bus = self.downgrade();
        runtime.spawn(serve(calls, answers, service, bus, handle.clone()));
        Ok(guard)
    }
}

fn pair() -> Result<(StdStream, StdStream)> {
    let (ours, theirs) = StdStream::pair().map_err(refused)?;
    ours.set_nonblocking(true).map_err(refused)?;
    Ok((ours, theirs))
}

fn refused(reason: std::io::Error) -> Error {
    let text = format!("the sockets of a worker can't be made: {reason}");
    Error::new(ErrorCode::Unavailable, text).with_source(reason)
}

/// Keeps a worker of this process in its pool. Dropping it takes the worker out,
/// and doesn't wait.
#[derive(Debug)]
#[must_use = "the worker is taken out of its pool when this is dropped"]
pub struct WorkerGuard {
    registered: Registered,
    handle: Handle,
    kept: bool,
}

impl WorkerGuard {
    /// Its number, as in [`WorkerInfo::id`](crate::WorkerInfo). That of a worker
    /// that is gone may be used again.
    pub fn id(&self) -> usize {
        self.registered.worker
    }

    /// Leaves the worker in its pool until the bus has ended.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        if !self.kept {
            let worker = self.registered;
            self.handle.send(Command::Unregister { worker });
        }
    }
}

/// A message for a worker of this process: a request, or a notification.
#[derive(Clone)]
pub struct ServiceCall {
    message: Arc<Received>,
    out: mpsc::Sender<Vec<u8>>,
    bus: WeakBus,
}

struct Received {
    frame: Vec<u8>,
    parts: Parts,
}

impl ServiceCall {
    pub(super) fn new(frame: Vec<u8>, out: mpsc::Sender<Vec<u8>>, bus: WeakBus) -> Self {
        let parts = Parts::read(&frame);
        let message = Arc::new(Received { frame, parts });
        Self { message, out, bus }
    }

    pub(super) fn is_readable(&self) -> bool {
        self.message.parts.readable
    }

    pub(super) fn is_answer(&self) -> bool {
        self.is_readable() && !self.message.parts.has_method
    }

    /// Its method.
    pub fn method(&self) -> &str {
        &self.message.parts.method
    }

    /// Its params; null where it has none. The tree is built when this is first
    /// called.
    pub fn params(&self) -> &Value {
        self.message.parts.params()
    }

    /// Its params as JSON text, as the client wrote them.
    pub fn raw_params(&self) -> Option<&str> {
        self.message.parts.raw_params()
    }

    /// Its params as a type of yours.
    ///
    /// # Errors
    /// -32602, ready to be the answer, where they aren't of this type.
    pub fn params_as<T: DeserializeOwned>(&self) -> std::result::Result<T, RpcError> {
        serde_json::from_str(self.raw_params().unwrap_or("null"))
            .map_err(|e| RpcError::invalid_params(e.to_string()))
    }

    /// The session it names, at its root or in its params.
    pub fn session_id(&self) -> Option<&str> {
        self.message.parts.session.as_deref()
    }

    /// Its id as JSON text: the bus's own, not the client's. `None` for a
    /// notification, whose outcome reaches nobody.
    pub fn id(&self) -> Option<&str> {
        self.message.parts.id.as_deref()
    }

    /// The whole message: one JSON object, without a newline.
    pub fn raw(&self) -> &[u8] {
        &self.message.frame
    }

    /// Sends a notification to whoever this call comes from: a chunk of text, an
    /// update, progress. To whom it belongs is found out as with any worker, by
    /// the session or the token in its params; where the call names a session at
    /// its root, the notification does, too.
    ///
    /// # Errors
    /// `InvalidArgument`: the params can't be written as JSON. `TransportError`:
    /// the worker is gone, or the bus.
    ///
    /// # Cancel safety
    /// Dropping the future sends nothing.
    pub async fn notify<P>(&self, method: &str, params: P) -> Result<()>
    where
        P: Serialize + Send,
    {
        let route = Route {
            session_id: self.message.parts.root_session.as_deref(),
            ..Route::default()
        };
        let frame = rpc::notification(method, route, &params)?;
        drop(params);
        let sent = self.out.send(frame).await;
        sent.map_err(|_| Error::new(ErrorCode::TransportError, "the worker is gone"))
    }

    /// The bus, for services that use it themselves; `None` once its last handle
    /// is gone. What this returns keeps the bus alive while it lives.
    pub fn bus(&self) -> Option<StdioBus> {
        self.bus.upgrade()
    }
}

impl fmt::Debug for ServiceCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceCall")
            .field("method", &self.method())
            .field("id", &self.id())
            .field("session_id", &self.session_id())
            .finish_non_exhaustive()
    }
}
