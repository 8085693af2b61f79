//! What a worker says on its own, on its way to whoever takes it.

use std::sync::{Arc, OnceLock};

use super::event::WorkerRef;
use crate::rpc::Parts;

/// A worker's request or notification: shared by all who get it, and parsed by
/// the first of them who looks, never on the bus thread.
#[derive(Debug)]
pub(crate) struct WorkerMessage {
    pub(crate) frame: Vec<u8>,
    /// The id token of a request; `None` for a notification.
    pub(crate) id: Option<Vec<u8>>,
    /// The pending request of ours it belongs to.
    pub(crate) request: Option<u64>,
    pub(crate) worker: WorkerRef,
    parts: OnceLock<Parts>,
}

impl WorkerMessage {
    pub(super) fn new(
        frame: Vec<u8>,
        id: Option<Vec<u8>>,
        request: Option<u64>,
        worker: WorkerRef,
    ) -> Self {
        Self {
            frame,
            id,
            request,
            worker,
            parts: OnceLock::new(),
        }
    }

    pub(crate) fn parts(&self) -> &Parts {
        self.parts.get_or_init(|| Parts::read(&self.frame))
    }

    #[cfg(test)]
    pub(crate) fn for_test(frame: &[u8]) -> Arc<Self> {
        let worker = WorkerRef {
            id: 0,
            pool: String::new(),
            generation: 1,
            pid: None,
        };
        Arc::new(Self::new(frame.to_vec(), None, None, worker))
    }
}

/// How an arc of it is passed on.
pub(crate) type SharedMessage = Arc<WorkerMessage>;
