//! Clients that are served over descriptors of this process.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::sync::oneshot;

use super::{StdioBus, check_running};
use crate::driver::Command;
use crate::error::{Error, ErrorCode, Result};
use crate::native::{Adopt, Framing, c_string};

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
            framing: Framing::Configured,
        };
        let adopted = self.ask(|reply| Command::Adopt { client, reply }).await?;
        Ok(AdoptedClient {
            id: adopted.client,
            gone: adopted.gone,
        })
    }

    /// Makes one more client of the bus, and gives its end of the connection:
    /// the way to put another library, an MCP or an ACP SDK, on a supervised
    /// worker. What it sends and gets is JSON-RPC, one object a line.
    ///
    /// The client is one like those that connect through a socket, on its own:
    /// its ids can't clash with anybody's, and what a worker asks it or tells it
    /// is not seen by this process's handlers and subscribers. What it sends goes
    /// to `pool`, unless a message names another pool; `None` leaves that to the
    /// rules for messages that name none.
    ///
    /// With `rmcp`, for example:
    ///
    /// ```no_run
    /// # use rmcp::ServiceExt;
    /// # use stdiobus::StdioBus;
    /// # async fn example(bus: StdioBus) -> Result<(), Box<dyn std::error::Error>> {
    /// let connection = bus.connect_io(Some("time")).await?;
    /// let client = ().serve(tokio::io::split(connection)).await?;
    /// let tools = client.list_all_tools().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// and with `agent-client-protocol`:
    ///
    /// ```no_run
    /// # use agent_client_protocol::ByteStreams;
    /// # use stdiobus::StdioBus;
    /// use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
    ///
    /// # async fn example(bus: StdioBus) -> stdiobus::Result<()> {
    /// let (read, write) = tokio::io::split(bus.connect_io(Some("agent")).await?);
    /// let transport = ByteStreams::new(write.compat_write(), read.compat());
    /// # let _ = transport;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - `InvalidState`: the bus isn't running, or this isn't called from a tokio
    ///   runtime.
    /// - `InvalidArgument`: there is no such pool.
    /// - `Unavailable`: the system refuses to make a pair of sockets.
    ///
    /// # Panics
    /// If the tokio runtime was built without I/O.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no client behind.
    pub async fn connect_io(&self, pool: Option<&str>) -> Result<BusStream> {
        check_running(self.state())?;
        if runtime::Handle::try_current().is_err() {
            return Err(Error::invalid_state("there is no tokio runtime here"));
        }
        let (stream, id) = self.connect_socket(pool).await?;
        stream.set_nonblocking(true).map_err(refused)?;
        let stream = UnixStream::from_std(stream).map_err(refused)?;
        Ok(BusStream { stream, id })
    }

    /// The end of a new client's connection, as a plain socket, and its number.
    pub(crate) async fn connect_socket(&self, pool: Option<&str>) -> Result<(StdStream, u32)> {
        check_running(self.state())?;
        let (ours, theirs) = StdStream::pair().map_err(refused)?;
        let client = Adopt {
            from: theirs.into(),
            to: None,
            pool: pool.map(|pool| c_string("pool", pool)).transpose()?,
            framing: Framing::Lines,
        };
        let adopted = self.ask(|reply| Command::Adopt { client, reply }).await?;
        Ok((ours, adopted.client))
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

/// One end of a connection to the bus, as a client of its own: see
/// [`StdioBus::connect_io`].
///
/// Reading and writing work as on a [`UnixStream`](tokio::net::UnixStream), for
/// the bus reads and writes lines of JSON-RPC at the other end. Shutting the
/// writing side down says that nothing more comes; answers that are due still
/// come. Dropping it disconnects the client, which gives up what it had asked.
/// It doesn't keep the bus alive: when that ends, reading ends.
#[derive(Debug)]
pub struct BusStream {
    stream: UnixStream,
    id: u32,
}

impl BusStream {
    /// The number of the client, as in
    /// [`Event::ClientDisconnected`](crate::Event).
    pub fn client_id(&self) -> u32 {
        self.id
    }
}

impl AsyncRead for BusStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for BusStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn refused(error: io::Error) -> Error {
    let text = format!("no pair of sockets: {error}");
    Error::new(ErrorCode::Unavailable, text).with_source(error)
}
