//! SIGTERM, SIGINT and SIGHUP.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{self, SignalKind};

/// How soon after another of its kind a signal is taken for the same one.
const ECHO: Duration = Duration::from_millis(100);

/// All of them, as one source.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Terminate,
    Interrupt,
    Hangup,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one that isn't an echo of `first`: `timeout` and terminals
    /// signal the process and then its group, which brings two of a kind for
    /// one intention.
    pub(crate) async fn next_after(&mut self, first: Option<Signal>) -> Signal {
        let came = Instant::now();
        loop {
            let signal = self.next().await;
            if Some(signal) != first || came.elapsed() > ECHO {
                return signal;
            }
        }
    }

    /// The next one that asks a daemon to end. SIGHUP means nothing meanwhile.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            match self.any().await {
                Signal::Hangup => {}
                signal => return signal,
            }
        }
    }

    /// The next one. What runs in a terminal ends with it, by SIGHUP.
    pub(crate) async fn any(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hangup.recv() => Signal::Hangup,
        }
    }
}

impl Signal {
    /// What a shell shows for a program that this signal has ended.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 128 + 15,
            Self::Interrupt => 128 + 2,
            Self::Hangup => 128 + 1,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Hangup => "SIGHUP",
        })
    }
}
