//! How a client on a socket ends: half, at once, or because the bus says so.

use tokio::time::timeout;

use super::{Broken, Client, Result};
use crate::check::End;
use crate::plan::{self, Work};
use crate::socket::Socket;
use crate::tasks::LOST;

impl Client {
    /// Says no more. Without a protocol what it has asked is still answered; else it has left.
    pub(super) async fn half_close(&mut self, count: u64) -> Result<()> {
        self.me.ledger.fault("client: half-closed");
        // It could not answer what a worker asks then.
        self.pump(0).await?;
        self.burst(count, Some(0), Work::Late { ms: 5 }).await?;
        self.socket.finish().await?;
        while let Some(line) = timeout(LOST, self.socket.line())
            .await
            .map_err(|_| Broken("a half-closed connection stays".into()))??
        {
            self.take(&line).await?;
        }
        if self.me.place.pool.is_plain() && !self.waiting.is_empty() {
            return Err(Broken("closed before the answers had come".into()));
        }
        self.leave();
        Ok(())
    }

    pub(super) async fn reset(&mut self, count: u64) -> Result<()> {
        self.me.ledger.fault("client: reset");
        self.burst(count, Some(0), Work::Late { ms: 2 }).await?;
        let nowhere = Socket::connect(&self.me.ways, false).await?;
        std::mem::replace(&mut self.socket, nowhere).reset();
        self.leave();
        Ok(())
    }

    /// What still waits has been given up.
    pub(super) fn leave(&mut self) {
        for (_, waiting) in self.waiting.drain() {
            self.me.ledger.ends(&waiting.sent, End::GivenUp);
        }
    }

    /// The bus has closed the connection, or it is mute.
    pub(super) fn break_off(&mut self, reason: &str) {
        let ledger = &self.me.ledger;
        let (act, _) = plan::act(
            self.me.seed,
            self.me.actor,
            self.step,
            self.me.place.pool,
            true,
        );
        let who = format!(
            "actor {} step {} {act:?} client {}",
            self.me.actor, self.step, self.client
        );
        ledger.violates(
            &ledger.unexplained,
            format!("{who}, {:?}: {reason}", self.me.place),
        );
        for (_, waiting) in self.waiting.drain() {
            ledger.violates(
                &ledger.lost,
                format!("{who}: {:?} has no end", waiting.sent),
            );
        }
    }
}
