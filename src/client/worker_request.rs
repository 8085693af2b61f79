//! What a worker asks.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{StdioBus, WeakBus};
use crate::driver::{SharedMessage, WorkerRef};
use crate::error::RpcError;

/// A request that a worker has sent: a permission, a file, a question.
///
/// It is given to the handler of [`StdioBusBuilder::on_request`](crate::StdioBusBuilder::on_request),
/// whose result is the answer.
#[derive(Clone)]
pub struct WorkerRequest {
    message: SharedMessage,
    bus: WeakBus,
}

impl WorkerRequest {
    pub(super) fn new(message: SharedMessage, bus: WeakBus) -> Self {
        Self { message, bus }
    }

    /// Its method.
    pub fn method(&self) -> &str {
        &self.message.parts().method
    }

    /// Its params; null where it has none. The tree is built when this is first
    /// called.
    pub fn params(&self) -> &Value {
        self.message.parts().params()
    }

    /// Its params as JSON text, as the worker wrote them.
    pub fn raw_params(&self) -> Option<&str> {
        self.message.parts().raw_params()
    }

    /// Its params as a type of yours.
    ///
    /// # Errors
    /// -32602, ready to be the answer, where they aren't of this type.
    pub fn params_as<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        serde_json::from_str(self.raw_params().unwrap_or("null"))
            .map_err(|e| RpcError::invalid_params(e.to_string()))
    }

    /// The session it names, at its root or in its params.
    pub fn session_id(&self) -> Option<&str> {
        self.message.parts().session.as_deref()
    }

    /// The worker that asks.
    pub fn worker(&self) -> &WorkerRef {
        &self.message.worker
    }

    /// The number of the request of this bus, still unanswered, that it belongs
    /// to: [`Request::id`](crate::Request::id). `None` where it can't be told.
    pub fn request_id(&self) -> Option<u64> {
        self.message.request
    }

    /// Its own id as JSON text. Two workers may use the same.
    pub fn id(&self) -> &str {
        let id = self.message.id.as_deref().unwrap_or(b"null");
        std::str::from_utf8(id).unwrap_or("null")
    }

    /// The whole message: one JSON object, without a newline.
    pub fn raw(&self) -> &[u8] {
        &self.message.frame
    }

    /// The bus, for handlers that use it themselves; `None` once its last
    /// handle is gone. What this returns keeps the bus alive while it lives.
    pub fn bus(&self) -> Option<StdioBus> {
        self.bus.upgrade()
    }
}

impl fmt::Debug for WorkerRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerRequest")
            .field("method", &self.method())
            .field("id", &self.id())
            .field("session_id", &self.session_id())
            .field("worker", &self.message.worker)
            .finish_non_exhaustive()
    }
}
