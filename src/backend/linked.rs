//! A bus that isn't in this process, at the other end of a wire: of a socket, or
//! of the pipes of a child.
//!
//! The bus thread has a tokio runtime of its own for it, which runs while the
//! thread is in a step and nowhere else.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::mode::RemoteOptions;
use super::subprocess::{Ladder, Launch, Program};
use super::wire::Wire;
use super::{Backend, Bell, Counts, Native, Refusal, remote};
use crate::error::{Error, ErrorCode, Result};
use crate::native::{Incoming, block_sigpipe};
use crate::stats::Stats;

/// How long what is left to say may take after the last answer.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a drain may take where nobody says.
const DRAIN: Duration = Duration::from_secs(30);

/// For ever, but within what a clock can tell.
pub(super) const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Where the bus is.
#[derive(Debug)]
pub(crate) enum Way {
    Remote(RemoteOptions),
    Subprocess(Launch),
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Not started, or nothing left.
    Idle,
    Open,
    /// Until nothing is in flight, or this time.
    Draining {
        until: Instant,
        grace: Duration,
    },
    /// The program lets go; its end is waited for, so that it can be told.
    Losing {
        until: Instant,
    },
    Closing {
        ladder: Ladder,
    },
    Closed,
}

pub(crate) struct Linked {
    way: Way,
    /// `None` only while this is being dropped.
    runtime: Option<Runtime>,
    bell: Arc<Notify>,
    wire: Option<Wire>,
    program: Option<Program>,
    phase: Phase,
    /// From before there was a wire.
    incoming: Vec<Incoming>,
}

impl Linked {
    pub(crate) fn create(way: Way) -> Result<Self> {
        // The thread is the bus's own.
        block_sigpipe();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| {
                let text = format!("no runtime can be made: {e}");
                Error::new(ErrorCode::ResourceExhausted, text).with_source(e)
            })?;
        Ok(Self {
            way,
            runtime: Some(runtime),
            bell: Arc::default(),
            wire: None,
            program: None,
            phase: Phase::Idle,
            incoming: Vec::new(),
        })
    }

    /// How long a drain may take, where the configuration is known and says it.
    fn drain_limit(&self) -> Option<Duration> {
        match &self.way {
            Way::Subprocess(launch) => launch.drain_limit,
            Way::Remote(_) => None,
        }
    }

    /// When there is something to do without anybody having said anything.
    fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle | Phase::Open | Phase::Closed => None,
            Phase::Draining { until, .. } | Phase::Losing { until } => Some(until),
            Phase::Closing { ladder } => Some(
                ladder
                    .terminate
                    .map_or(ladder.kill, |at| at.min(ladder.kill)),
            ),
        }
    }

    /// Reads, writes, and waits if there is nothing to read or write. Returns
    /// how the program ended, if it just did.
    fn turn(&mut self, wait: Option<Duration>) -> Option<io::Result<ExitStatus>> {
        let Self {
            runtime,
            bell,
            wire,
            program,
            ..
        } = self;
        let (child, mut errors) = match program {
            Some(program) => {
                let runs = program.exit.is_none();
                (
                    Some(&mut program.child).filter(|_| runs),
                    Some(&mut program.errors),
                )
            }
            None => (None, None),
        };
        let mut looked = false;
        let turn = async {
            let mut exit = pin!(async {
                match child {
                    Some(child) => child.wait().await,
                    None => pending().await,
                }
            });
            let mut rung = pin!(bell.notified());
            let mut nap = pin!(sleep(wait.unwrap_or_default()));
            poll_fn(|cx| {
                let mut moved = wire.as_mut().is_some_and(|wire| wire.poll(cx).is_ready());
                moved |= errors.as_mut().is_some_and(|e| e.poll(cx).is_ready());
                if let Poll::Ready(status) = exit.as_mut().poll(cx) {
                    return Poll::Ready(Some(status));
                }
                if moved || rung.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                match wait {
                    None => Poll::Pending,
                    // What there is to read is only known once the runtime has
                    // had its turn.
                    Some(Duration::ZERO) if !looked => {
                        looked = true;
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Some(Duration::ZERO) => Poll::Ready(None),
                    Some(_) => nap.as_mut().poll(cx).map(|()| None),
                }
            })
            .await
        };
        runtime.as_ref()?.block_on(turn)
    }

    /// Goes on to the next phase, where it is time. The error says why there is
    /// none.
    fn advance(&mut self) -> std::result::Result<(), String> {
        let now = Instant::now();
        let ended = self.wire.as_ref().and_then(Wire::ended).is_some();
        let exited = self.program.as_ref().is_some_and(|p| p.exit.is_some());
        let over = self.program.as_ref().is_none_or(Program::is_over);
        match self.phase {
            Phase::Idle | Phase::Closed => {}
            Phase::Open | Phase::Draining { .. } if ended || exited => {
                let wait = match self.way {
                    Way::Subprocess(_) => LAST_WORDS,
                    Way::Remote(_) => Duration::ZERO,
                };
                self.phase = Phase::Losing { until: now + wait };
                return self.advance();
            }
            Phase::Open => {}
            Phase::Draining { until, grace } => {
                if now >= until || self.wire.as_ref().is_none_or(Wire::is_idle) {
                    self.close(grace);
                }
            }
            Phase::Losing { until } => {
                if (ended && over) || now >= until {
                    return Err(self.explain());
                }
            }
            Phase::Closing { ladder } => self.close_further(ladder, now),
        }
        Ok(())
    }

    fn explain(&self) -> String {
        let reason = self.wire.as_ref().and_then(Wire::ended);
        match (&self.program, &self.way) {
            (Some(program), _) => program.explain(reason),
            (None, Way::Remote(options)) => {
                let reason = reason.unwrap_or("unknown");
                format!("the connection to {} is lost: {reason}", options.address)
            }
            (None, Way::Subprocess(_)) => "the program has ended".into(),
        }
    }

    fn close(&mut self, limit: Duration) {
        if let Some(wire) = &mut self.wire {
            wire.close();
            // Also where there is no time: over TCP the other end can't tell who
            // has left from who only has nothing more to say.
            if let Some(runtime) = &self.runtime {
                runtime.block_on(poll_fn(|cx| wire.flush(cx)));
            }
        }
        let ladder = match &self.way {
            // Others may hold on to its stderr.
            Way::Subprocess(_) if self.program.as_ref().is_none_or(Program::is_gone) => {
                Ladder::last()
            }
            Way::Subprocess(launch) => Ladder::within(limit, launch.options.drain_timeout),
            Way::Remote(_) => Ladder {
                terminate: None,
                kill: Instant::now() + limit.min(LAST_WORDS),
            },
        };
        let sooner = match self.phase {
            Phase::Closing { ladder: old } => Ladder {
                terminate: old.terminate.min(ladder.terminate),
                kill: old.kill.min(ladder.kill),
            },
            _ => ladder,
        };
        self.phase = Phase::Closing { ladder: sooner };
    }

    fn close_further(&mut self, ladder: Ladder, now: Instant) {
        let late = now >= ladder.kill;
        let Some(program) = &mut self.program else {
            let over = |wire: &Wire| wire.is_closed() || wire.ended().is_some();
            if late || self.wire.as_ref().is_none_or(over) {
                self.phase = Phase::Closed;
            }
            return;
        };
        if program.is_over() || (late && program.is_gone()) {
            self.phase = Phase::Closed;
        } else if late {
            program.kill();
            // Once is enough: what is left is to wait for the system.
            self.phase = Phase::Closing {
                ladder: Ladder::last(),
            };
        } else if ladder.terminate.is_some_and(|at| now >= at) {
            program.terminate();
            self.phase = Phase::Closing {
                ladder: ladder.terminated(now),
            };
        }
    }
}

impl Backend for Linked {
    fn bell(&self) -> Bell<'_> {
        let bell = Arc::clone(&self.bell);
        Bell::Call(Box::new(move || bell.notify_one()))
    }

    fn start(&mut self) -> Result<Vec<String>> {
        let Some(runtime) = &self.runtime else {
            return Err(Error::shutting_down());
        };
        match &self.way {
            Way::Remote(options) => {
                self.wire = Some(runtime.block_on(remote::connect(options))?);
            }
            Way::Subprocess(launch) => {
                let (program, wire) = runtime.block_on(launch.start(&mut self.incoming))?;
                self.program = Some(program);
                self.wire = Some(wire);
            }
        }
        self.phase = Phase::Open;
        Ok(Vec::new())
    }

    fn step(&mut self, wait: Option<Duration>) -> std::result::Result<(), String> {
        // What has been asked for may be there already: then nothing else comes.
        self.advance()?;
        if self.is_stopped() {
            return Ok(());
        }
        let due = self
            .due()
            .map(|at| at.saturating_duration_since(Instant::now()));
        let wait = match (wait, due) {
            (Some(wait), Some(due)) => Some(wait.min(due)),
            (wait, due) => wait.or(due),
        };
        if let Some(status) = self.turn(wait)
            && let Some(program) = &mut self.program
        {
            program.ended(status);
            if let Phase::Closing { .. } = self.phase {
                self.phase = Phase::Closing {
                    ladder: Ladder::last(),
                };
            }
        }
        self.advance()
    }

    fn take_incoming(&mut self, into: &mut Vec<Incoming>) {
        into.append(&mut self.incoming);
        if let Some(program) = &mut self.program {
            into.append(&mut program.errors.incoming);
        }
        if let Some(wire) = &mut self.wire {
            wire.take_incoming(into);
        }
    }

    fn submit(&mut self, frame: &[u8], _answer_errors: bool) -> std::result::Result<(), Refusal> {
        match &mut self.wire {
            Some(wire) => wire.submit(frame),
            None => Err(Refusal::Stopped(Error::invalid_state(
                "the bus has not been started",
            ))),
        }
    }

    fn cancel(&mut self, id: u64) {
        if let Some(wire) = &mut self.wire {
            wire.cancel(id);
        }
    }

    fn stop_within(&mut self, limit: Duration) -> Result<()> {
        match self.phase {
            Phase::Idle | Phase::Closed => self.phase = Phase::Closed,
            _ => self.close(limit),
        }
        Ok(())
    }

    fn drain(&mut self, limit: Option<Duration>, grace: Duration) -> Result<()> {
        if let Phase::Open = self.phase {
            let until = Instant::now() + limit.or(self.drain_limit()).unwrap_or(DRAIN).min(AGES);
            self.phase = Phase::Draining { until, grace };
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    fn counts(&self) -> Counts {
        Counts {
            pending: Some(self.wire.as_ref().map_or(0, Wire::pending)),
            ..Counts::default()
        }
    }

    fn stats(&self) -> Stats {
        self.wire.as_ref().map(Wire::stats).unwrap_or_default()
    }

    fn native(&self) -> Option<&Native> {
        None
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        runtime.block_on(async {
            if let Some(program) = self.program.as_mut().filter(|p| p.exit.is_none()) {
                let _ = timeout(LAST_WORDS, program.child.kill()).await;
            }
            // What knows the runtime goes before it.
            self.program = None;
            self.wire = None;
        });
        // A name that is being looked up must not hold up the end.
        runtime.shutdown_background();
    }
}
