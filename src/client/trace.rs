//! What operators see of one request: its span, and how long it took. Without
//! the features `tracing` and `metrics` there is nothing in here.

#[cfg(any(feature = "tracing", feature = "metrics"))]
use std::time::{Duration, Instant};

use super::{RequestOptions, StdioBus};
#[cfg(any(feature = "tracing", feature = "metrics"))]
use crate::error::ErrorCode;
use crate::error::{Error, Result};

/// Watches one request from its making to its end. Dropped before the end, it
/// tells that the request was given up.
#[derive(Debug)]
pub(super) struct Trace {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
    #[cfg(feature = "metrics")]
    bus: std::sync::Arc<str>,
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    life: Life,
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
#[derive(Debug)]
enum Life {
    Unsent,
    /// Without the time where nobody wants to know it.
    Sent(Option<Instant>),
    Ended,
}

/// How a request ended, and the number of the JSON-RPC error where it was one.
#[cfg(any(feature = "tracing", feature = "metrics"))]
#[derive(Debug, Clone, Copy)]
struct Outcome {
    name: &'static str,
    #[cfg(feature = "tracing")]
    rpc_code: Option<i64>,
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
impl Outcome {
    fn named(name: &'static str) -> Self {
        Self {
            name,
            #[cfg(feature = "tracing")]
            rpc_code: None,
        }
    }

    fn of(error: Option<&Error>) -> Self {
        let Some(error) = error else {
            return Self::named("ok");
        };
        Self {
            name: error.kind().map_or("rpc_error", ErrorCode::name),
            #[cfg(feature = "tracing")]
            rpc_code: error.rpc_code(),
        }
    }
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
impl Trace {
    #[cfg_attr(not(feature = "tracing"), allow(unused_variables))]
    pub(super) fn new(bus: &StdioBus, id: u64, method: &str, options: &RequestOptions) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: span(bus, id, method, options),
            #[cfg(feature = "metrics")]
            bus: std::sync::Arc::clone(&bus.owner.handle.shared().name),
            life: Life::Unsent,
        }
    }

    /// Runs a part of the request's life, which the first time sends it.
    pub(super) fn in_scope<T>(&mut self, part: impl FnOnce() -> T) -> T {
        if let Life::Unsent = self.life {
            self.life = Life::Sent(self.is_watched().then(Instant::now));
        }
        #[cfg(feature = "tracing")]
        return self.span.in_scope(part);
        #[cfg(not(feature = "tracing"))]
        part()
    }

    #[cfg(feature = "metrics")]
    fn is_watched(&self) -> bool {
        true
    }

    #[cfg(not(feature = "metrics"))]
    fn is_watched(&self) -> bool {
        !self.span.is_disabled()
    }

    /// The request has ended like this.
    pub(super) fn ended<T>(&mut self, result: Result<T>) -> Result<T> {
        self.end(Outcome::of(result.as_ref().err()));
        result
    }

    /// The request was let go, unless it couldn't be sent. How long it takes
    /// nobody will know.
    pub(super) fn detached(&mut self, sent: Result<()>) -> Result<()> {
        if sent.is_ok() {
            self.life = Life::Unsent;
            self.end(Outcome::named("detached"));
        }
        self.ended(sent)
    }

    fn end(&mut self, outcome: Outcome) {
        let took = match std::mem::replace(&mut self.life, Life::Ended) {
            Life::Ended => return,
            Life::Unsent => None,
            Life::Sent(sent) => sent.map(|sent| sent.elapsed()),
        };
        self.record(outcome, took);
        #[cfg(feature = "metrics")]
        if let Some(took) = took {
            super::metrics::took(&self.bus, outcome.name, took);
        }
    }

    #[cfg(feature = "tracing")]
    fn record(&self, outcome: Outcome, took: Option<Duration>) {
        self.span.record("outcome", outcome.name);
        if let Some(code) = outcome.rpc_code {
            self.span.record("rpc_code", code);
        }
        if let Some(took) = took {
            self.span.record("elapsed_ms", took.as_secs_f64() * 1e3);
        }
    }

    #[cfg(not(feature = "tracing"))]
    fn record(&self, _: Outcome, _: Option<Duration>) {}
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
impl Drop for Trace {
    fn drop(&mut self) {
        self.end(match self.life {
            Life::Unsent => Outcome::named("unsent"),
            _ => Outcome::named(ErrorCode::Cancelled.name()),
        });
    }
}

/// The span of a request; its parent is the caller's.
#[cfg(feature = "tracing")]
fn span(bus: &StdioBus, id: u64, method: &str, options: &RequestOptions) -> tracing::Span {
    use tracing::field::Empty;

    let (pool, session) = options.named(&bus.owner.session_id);
    tracing::debug_span!(
        target: "stdiobus",
        "stdiobus.request",
        bus = bus.name(),
        request = id,
        method,
        pool,
        session,
        outcome = Empty,
        rpc_code = Empty,
        elapsed_ms = Empty,
    )
}

#[cfg(not(any(feature = "tracing", feature = "metrics")))]
impl Trace {
    #[inline(always)]
    pub(super) fn new(_: &StdioBus, _: u64, _: &str, _: &RequestOptions) -> Self {
        Self {}
    }

    #[inline(always)]
    pub(super) fn in_scope<T>(&mut self, part: impl FnOnce() -> T) -> T {
        part()
    }

    #[inline(always)]
    pub(super) fn ended<T>(&mut self, result: Result<T, Error>) -> Result<T> {
        result
    }

    #[inline(always)]
    pub(super) fn detached(&mut self, sent: Result<()>) -> Result<()> {
        sent
    }
}

#[cfg(all(test, not(any(feature = "tracing", feature = "metrics"))))]
mod tests {
    use super::*;

    #[test]
    fn without_the_features_a_request_carries_nothing_for_them() {
        assert_eq!(size_of::<Trace>(), 0);
        assert!(!std::mem::needs_drop::<Trace>());
    }
}
