//! An agent that serves one client: lines in, lines out.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::children::Children;
use super::input::Input;
use super::session::Session;
use super::spec::AgentSpec;

/// The longest line, if nothing else was said.
const MAX_LINE: usize = 16 << 20;

/// Programs at once, if nothing else was said.
const MAX_CONCURRENT: usize = 16;

/// Answers that wait for a client that doesn't read.
const MAX_ANSWERS: usize = 16;

/// An agent on a stream: the other side of `tasks/send`.
///
/// Echo and greeter answer in the order of the requests. An exec agent works on
/// several threads at once, and in each on one message at a time, in their order;
/// it keeps them in files ([`threads_folder`](Self::threads_folder)).
///
/// ```
/// use stdiobus::agent::{AgentSpec, Handler, StdioAgent};
///
/// # async fn example() -> std::io::Result<()> {
/// let agent = StdioAgent::new(AgentSpec::new("echo", Handler::Echo));
/// let (client, server) = tokio::io::duplex(4096);
/// let (from, to) = tokio::io::split(server);
/// agent.serve(from, to).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StdioAgent {
    pub(super) spec: AgentSpec,
    pub(super) max_line: usize,
    pub(super) max_concurrent: usize,
    pub(super) strict_reference: bool,
    pub(super) threads: Option<PathBuf>,
}

impl StdioAgent {
    /// An agent that is not served yet.
    pub fn new(spec: AgentSpec) -> Self {
        Self {
            spec,
            max_line: MAX_LINE,
            max_concurrent: MAX_CONCURRENT,
            strict_reference: false,
            threads: None,
        }
    }

    /// The longest line in bytes, at least 1. Longer ones are answered with error
    /// -32700. Default: 16 MiB.
    #[must_use]
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes.max(1);
        self
    }

    /// How many programs may run at once, at least 1. Default: 16.
    #[must_use]
    pub fn max_concurrent(mut self, programs: usize) -> Self {
        self.max_concurrent = programs.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Whether a notification is answered with error -32600, as the reference
    /// does. Otherwise it is ignored. Default: false.
    #[must_use]
    pub fn strict_reference(mut self, strict: bool) -> Self {
        self.strict_reference = strict;
        self
    }

    /// Where threads are kept. Default: `~/.society/threads`.
    #[must_use]
    pub fn threads_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.threads = Some(folder.into());
        self
    }

    /// Serves until the reader ends and all is answered.
    ///
    /// Cancel safe in that nothing is left running: programs are killed if this is
    /// dropped, and what they worked on is not answered.
    ///
    /// # Errors
    /// Of the reader or the writer.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O and time enabled.
    pub async fn serve<R, W>(&self, reader: R, writer: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        self.serve_until(reader, writer, std::future::pending())
            .await
    }

    /// [`serve`](Self::serve), or until `stop` is ready: then programs get SIGTERM,
    /// after half a second SIGKILL, and what they worked on is not answered.
    ///
    /// # Errors
    /// Of the reader or the writer.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O and time enabled.
    pub async fn serve_until<R, W>(
        &self,
        reader: R,
        writer: W,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let children = KillOnDrop(Children::new());
        let (answers, to_write) = mpsc::channel(MAX_ANSWERS);
        let mut tasks = JoinSet::new();
        let input = Input::new(reader, self.max_line);
        let session = Session::new(self, &children.0, answers, &mut tasks);
        let mut served = pin!(async {
            let mut written = pin!(write_all(writer, to_write));
            let ended = tokio::select! {
                ended = session.run(input) => ended,
                // It goes on as long as there may be answers, unless it fails.
                written = &mut written => return written,
            };
            written.await?;
            ended
        });
        tokio::select! {
            result = &mut served => return result,
            () = stop => {}
        }
        children.0.end().await;
        Ok(())
    }
}

struct KillOnDrop(Arc<Children>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// One line is one write.
async fn write_all(
    mut writer: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        writer.write_all(&line).await?;
        writer.flush().await?;
    }
    Ok(())
}
