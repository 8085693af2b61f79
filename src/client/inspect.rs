//! What a bus tells about itself.

use std::sync::{MutexGuard, PoisonError};

use super::{ListenAddr, ListenMode, StdioBus};
use crate::backend::{no_worker, not_here};
use crate::driver::{Command, Gauges};
use crate::error::{ErrorCode, Result};
use crate::stats::{BackendType, BusState, PoolInfo, Stats, WorkerInfo};

impl StdioBus {
    /// Where the bus is in its life.
    pub fn state(&self) -> BusState {
        self.owner.handle.shared().state()
    }

    /// What operators call it: see [`StdioBusBuilder::name`](crate::StdioBusBuilder::name).
    pub fn name(&self) -> &str {
        &self.owner.handle.shared().name
    }

    /// Whether requests are served.
    pub fn is_running(&self) -> bool {
        self.state() == BusState::Running
    }

    /// What runs the bus.
    pub fn backend_type(&self) -> BackendType {
        self.owner.backend
    }

    /// Where the bus listens, as the builder was told; empty for nowhere.
    /// [`listen_addrs`](Self::listen_addrs) has the addresses that came of it.
    pub fn listen_mode(&self) -> &[ListenMode] {
        &self.owner.listen
    }

    /// The session that requests belong to unless they say otherwise:
    /// `client-<unix ms>-<6 random characters>`.
    pub fn client_session_id(&self) -> &str {
        &self.owner.session_id
    }

    /// The session that the worker named in its answer to the last
    /// [`hello`](Self::hello); `None` before that, and where it named none.
    /// Requests don't use it unless they are told to.
    pub fn agent_session_id(&self) -> Option<String> {
        self.agent_session().clone()
    }

    pub(super) fn set_agent_session_id(&self, session: Option<String>) {
        *self.agent_session() = session;
    }

    fn agent_session(&self) -> MutexGuard<'_, Option<String>> {
        let session = self.owner.agent_session_id.lock();
        session.unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses the listeners are bound to, in the order they were asked
    /// for: with the real port where 0 was. Empty before the start.
    pub fn listen_addrs(&self) -> Vec<ListenAddr> {
        let bound = self.owner.handle.shared().addresses.get();
        let bound = bound.map(Vec::as_slice).unwrap_or_default();
        self.owner
            .listen
            .iter()
            .zip(bound)
            .filter_map(|(mode, text)| mode.bound(text))
            .collect()
    }

    /// Workers that run. `None` where this can't be known.
    pub fn worker_count(&self) -> Option<usize> {
        Gauges::get(&self.gauges().workers)
    }

    /// Clients that are connected. `None` where this can't be known.
    pub fn client_count(&self) -> Option<usize> {
        Gauges::get(&self.gauges().clients)
    }

    /// Sessions that are bound to a worker. `None` where this can't be known.
    pub fn session_count(&self) -> Option<usize> {
        Gauges::get(&self.gauges().sessions)
    }

    /// Requests that wait for an answer, those of socket clients included; of a
    /// bus that isn't in this process, this client's own. `None` where this can't
    /// be known.
    pub fn pending_count(&self) -> Option<usize> {
        Gauges::get(&self.gauges().pending)
    }

    /// The last lines that went to stderr, at most `lines` of them, the newest
    /// last; also of a stopped bus. Those of all workers, in the order the bus read
    /// them, where their pools' [`StderrMode`](crate::StderrMode) is `Log`; of a
    /// bus that is a subprocess everything that the program wrote.
    ///
    /// 200 lines are kept unless
    /// [`SubprocessOptions::stderr_buffer_lines`](crate::SubprocessOptions) says
    /// otherwise, and no more than 256 KiB.
    ///
    /// # Errors
    /// `NotSupported` where the bus is remote.
    pub async fn stderr_tail(&self, lines: usize) -> Result<Vec<String>> {
        if self.owner.backend == BackendType::Remote {
            return Err(not_here());
        }
        match self.ask(|reply| Command::Tail { lines, reply }).await {
            Err(_) => {
                let last = self.owner.handle.shared().last();
                let skip = last.tail.len().saturating_sub(lines);
                Ok(last.tail[skip..].to_vec())
            }
            tail => tail,
        }
    }

    /// The last lines that one worker wrote to stderr, at most `lines` of them,
    /// the newest last; also of one that has ended, and of a stopped bus. `worker`
    /// is its number ([`WorkerInfo::id`]).
    ///
    /// The bus keeps the last 64 KiB of each worker's stderr, where the pool's
    /// [`StderrMode`](crate::StderrMode) is `Log`; of others there is nothing.
    ///
    /// # Errors
    /// `InvalidArgument`: there is no such worker. `NotSupported`: the bus isn't
    /// in this process.
    pub async fn worker_stderr_tail(&self, worker: usize, lines: usize) -> Result<Vec<String>> {
        self.check_here()?;
        let tail = self.ask(|reply| Command::Stderr { worker, reply }).await;
        let tail = match tail {
            Err(error) if error.is(ErrorCode::TransportError) => {
                let last = self.owner.handle.shared().last();
                let at = last.workers.iter().position(|info| info.id == worker);
                let tail = at.and_then(|at| last.stderr.get(at).cloned());
                tail.ok_or_else(|| no_worker(worker))?
            }
            tail => tail?,
        };
        let text = String::from_utf8_lossy(&tail);
        let newest = text.lines().rev().take(lines).map(str::to_owned);
        let mut newest: Vec<_> = newest.collect();
        newest.reverse();
        Ok(newest)
    }

    /// What only a bus in this process can do.
    pub(super) fn check_here(&self) -> Result<()> {
        match self.owner.backend {
            BackendType::Native => Ok(()),
            _ => Err(not_here()),
        }
    }

    fn gauges(&self) -> &Gauges {
        &self.owner.handle.shared().gauges
    }

    /// Counters since the bus was built; of a stopped bus, the last ones.
    ///
    /// # Errors
    /// None today.
    pub async fn stats(&self) -> Result<Stats> {
        match self.ask(|reply| Command::Stats { reply }).await {
            Err(_) => Ok(self.owner.handle.shared().last().stats.clone()),
            stats => stats,
        }
    }

    /// The workers as they are now; of a stopped bus, as they were at its end.
    ///
    /// # Errors
    /// `NotSupported`: the bus isn't in this process.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        self.check_here()?;
        match self.ask(|reply| Command::Workers { reply }).await {
            Err(_) => Ok(self.owner.handle.shared().last().workers.clone()),
            workers => workers,
        }
    }

    /// The pools as they are now, in the order of the configuration; of a stopped
    /// bus, as they were at its end.
    ///
    /// # Errors
    /// `NotSupported`: the bus isn't in this process.
    pub async fn pools(&self) -> Result<Vec<PoolInfo>> {
        self.check_here()?;
        match self.ask(|reply| Command::Pools { reply }).await {
            Err(_) => Ok(self.owner.handle.shared().last().pools.clone()),
            pools => pools,
        }
    }
}
