//! The state as it changes, and what changes the bus while it runs.

use tokio::sync::watch;

use super::{StdioBus, check_running};
use crate::config::BusConfig;
use crate::driver::Command;
use crate::error::{Error, Result};
use crate::native::c_string;
use crate::stats::BusState;

impl StdioBus {
    /// Tells of each change of the bus's state from now on. It doesn't keep the
    /// bus alive.
    pub fn state_changes(&self) -> StateChanges {
        StateChanges(self.owner.handle.shared().changes())
    }

    /// Forgets to which workers a session is bound, so that its next message
    /// may go to others. Requests of it that are pending stay so. `false` if
    /// nothing was bound.
    ///
    /// # Errors
    /// `InvalidArgument`: the name is empty. `InvalidState`: the bus isn't
    /// running. `TransportError`: it is shutting down.
    ///
    /// # Cancel safety
    /// Once polled, it is done.
    pub async fn end_session(&self, session: &str) -> Result<bool> {
        if session.is_empty() {
            return Err(Error::invalid_argument("session must not be empty"));
        }
        check_running(self.state())?;
        let session = session.to_owned();
        self.ask(|reply| Command::EndSession { session, reply })
            .await
    }

    /// Takes another configuration while running.
    ///
    /// Pools that stay the same are not touched. The workers of a pool that is
    /// changed or gone take nothing new, and end when they have answered
    /// everything, at the latest after the limit `drain_timeout_sec`; those of a
    /// new or changed pool are started. Numbers of workers may change.
    ///
    /// # Errors
    /// Nothing has changed then.
    /// - `InvalidArgument`: the configuration isn't valid; the text names the
    ///   pool and the field.
    /// - `Unavailable`: a program can't be found; the text names it.
    /// - `InvalidState`: the bus isn't running. `TransportError`: it is shutting
    ///   down.
    ///
    /// # Cancel safety
    /// Once polled, it is done.
    pub async fn reload(&self, config: BusConfig) -> Result<()> {
        config.validate()?;
        self.reload_json(config.to_json()).await
    }

    /// [`reload`](Self::reload) with a configuration that is JSON text.
    ///
    /// # Errors
    /// As there; what isn't valid is also named by line and column.
    ///
    /// # Cancel safety
    /// Once polled, it is done.
    pub async fn reload_json(&self, json: impl Into<String>) -> Result<()> {
        let json = c_string("config", json.into())?;
        check_running(self.state())?;
        self.ask(|reply| Command::Reload { json, reply }).await
    }
}

/// The states of a bus: see [`StdioBus::state_changes`].
///
/// It shows the newest, so that a reader who is slow may miss those between;
/// it never misses the last one.
#[derive(Debug)]
#[must_use = "what comes is lost when this is dropped"]
pub struct StateChanges(watch::Receiver<BusState>);

impl StateChanges {
    /// The present state. Doesn't count as heard: [`next`](Self::next) still
    /// tells of it.
    pub fn state(&self) -> BusState {
        *self.0.borrow()
    }

    /// The next state that hasn't been told yet; `None` after
    /// [`Stopped`](BusState::Stopped), and once the bus is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<BusState> {
        // With nobody left to tell, there may still be something untold.
        let untold = self.0.has_changed().unwrap_or(true);
        if !untold && self.state() == BusState::Stopped {
            return None;
        }
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }

    /// Waits until the bus is in this state or beyond it, and tells where it is.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn reached(&mut self, state: BusState) -> BusState {
        match self.0.wait_for(|now| *now >= state).await {
            Ok(state) => *state,
            // The one who tells lives as long as anybody can ask.
            Err(_) => BusState::Stopped,
        }
    }
}
