//! Clients that are served over descriptors of this process.

use std::os::fd::OwnedFd;

use tokio::sync::oneshot;

use super::{StdioBus, check_running};
use crate::driver::Command;
use crate::error::Result;
use crate::native::Adopt;

impl StdioBus {
    /// Serves one more client, over two descriptors: what it sends comes from
    /// `from`, what it gets goes to `to`. The bus makes them non-blocking while
    /// it has them, and closes them when the client is gone.
    ///
    /// # Errors
    /// `InvalidState` unless the bus is running; `Unavailable` if the system
    /// refuses.
    pub async fn adopt_client(
        &self,
        from: impl Into<OwnedFd>,
        to: impl Into<OwnedFd>,
    ) -> Result<AdoptedClient> {
        check_running(self.state())?;
        let client = Adopt {
            from: from.into(),
            to: Some(to.into()),
            pool: None,
            lines: false,
        };
        let adopted = self.ask(|reply| Command::Adopt { client, reply }).await?;
        Ok(AdoptedClient {
            id: adopted.client,
            gone: adopted.gone,
        })
    }
}

/// A client that is served over descriptors; see [`StdioBus::adopt_client`].
/// Dropping this doesn't disconnect it.
#[derive(Debug)]
pub struct AdoptedClient {
    id: u32,
    gone: oneshot::Receiver<String>,
}

impl AdoptedClient {
    /// Its number, as in [`Event::ClientDisconnected`](crate::Event).
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits until the client is gone, and tells why: `closed`, `error`,
    /// `timeout`, `overflow` or `shutdown`.
    pub async fn closed(self) -> String {
        self.gone.await.unwrap_or_else(|_| "shutdown".into())
    }
}
