//! Clients over descriptors of this process, without async.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::park::wait;

/// One end of a connection to the bus, as a client of its own: see
/// [`StdioBus::connect_io`](super::StdioBus::connect_io).
///
/// Reading and writing work as on a [`UnixStream`], for the bus reads and writes
/// lines of JSON-RPC at the other end. Dropping it, and all that were cloned from
/// it, disconnects the client. It doesn't keep the bus alive: when that ends,
/// reading ends.
#[derive(Debug)]
pub struct BusStream {
    pub(super) stream: UnixStream,
    pub(super) id: u32,
}

impl BusStream {
    /// The number of the client, as in
    /// [`Event::ClientDisconnected`](crate::Event).
    pub fn client_id(&self) -> u32 {
        self.id
    }

    /// The same connection once more, so that one thread reads while another
    /// writes.
    ///
    /// # Errors
    /// The system's, if it has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            id: self.id,
        })
    }

    /// How long a read may wait; `None`, as at first, for ever.
    ///
    /// # Errors
    /// `InvalidInput` for a duration of zero.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit)
    }

    /// How long a write may wait; `None`, as at first, for ever.
    ///
    /// # Errors
    /// `InvalidInput` for a duration of zero.
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_write_timeout(limit)
    }

    /// Says that nothing more comes; answers that are due still do.
    ///
    /// # Errors
    /// The system's, if the connection is gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }
}

impl Read for BusStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }
}

impl Write for BusStream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A client that is served over descriptors: see
/// [`StdioBus::adopt_client`](super::StdioBus::adopt_client). Dropping this
/// doesn't disconnect it.
#[derive(Debug)]
pub struct AdoptedClient(pub(super) crate::AdoptedClient);

impl AdoptedClient {
    /// Its number, as in [`Event::ClientDisconnected`](crate::Event).
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until the client is gone, and tells why: see
    /// [`AdoptedClient::closed`](crate::AdoptedClient::closed).
    pub fn closed(self) -> String {
        wait(self.0.closed())
    }
}
