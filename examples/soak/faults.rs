//! What is done to workers and configurations while everything runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stdiobus::StdioBus;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::check::{Ledger, one};
use crate::plan::{self, Bus, Fault, Place, Pool};
use crate::program::Program;
use crate::setup::Setup;
use crate::witness::{Running, Witness};

pub struct Injector {
    pub seed: u64,
    pub ledger: Arc<Ledger>,
    pub witness: Arc<Witness>,
    pub native: StdioBus,
    pub setup: Setup,
    /// How many configurations there have been.
    pub marks: u64,
    pub step: u64,
}

impl Injector {
    /// Injects faults until the time is over. No worker is left stopped.
    pub async fn run(&mut self, program: &mut Program, until: Instant) {
        let mut stalls = JoinSet::new();
        loop {
            let (fault, pause) = plan::fault(self.seed, self.step);
            let due = Instant::now() + Duration::from_millis(pause);
            if due >= until {
                break;
            }
            sleep(due - Instant::now()).await;
            self.step += 1;
            self.inject(fault, program, &mut stalls).await;
        }
        while stalls.join_next().await.is_some() {}
    }

    async fn inject(&mut self, fault: Fault, program: &mut Program, stalls: &mut JoinSet<()>) {
        match fault {
            Fault::Kill { which } => {
                if let Some(worker) = self.pick(which) {
                    self.ledger.fault("worker: SIGKILL");
                    one(&self.ledger.causes(worker.place).killed);
                    signal(worker.pid, Signal::SIGKILL);
                }
            }
            Fault::Terminate { which } => {
                if let Some(worker) = self.pick(which) {
                    self.ledger.fault("worker: SIGTERM");
                    one(&self.ledger.causes(worker.place).terminated);
                    signal(worker.pid, Signal::SIGTERM);
                }
            }
            Fault::Stall { which, ms } => {
                if let Some(worker) = self.pick(which) {
                    self.ledger.fault("worker: SIGSTOP");
                    stalls.spawn(stall(
                        worker,
                        Duration::from_millis(ms),
                        Arc::clone(&self.witness),
                    ));
                }
            }
            Fault::Reload => {
                self.ledger.fault("native: reload");
                let config = self.next_config(Bus::Native);
                if let Err(error) = self.native.reload(config).await {
                    let text = format!("reload: {error:?}");
                    self.ledger.violates(&self.ledger.unexplained, text);
                }
            }
            Fault::Hangup => {
                self.ledger.fault("program: SIGHUP");
                let config = self.next_config(Bus::Program).to_json();
                self.hang_up(program, &config, "the configuration is in force")
                    .await;
            }
            Fault::BadHangup => {
                self.ledger.fault("program: SIGHUP, bad file");
                self.hang_up(
                    program,
                    "{\"pools\": [",
                    "the configuration before it stays",
                )
                .await;
            }
        }
    }

    async fn hang_up(&self, program: &mut Program, config: &str, outcome: &str) {
        if let Err(reason) = program.reload(config, outcome).await {
            self.ledger.violates(&self.ledger.unexplained, reason);
        }
    }

    /// Another configuration of the pool that moves.
    fn next_config(&mut self, bus: Bus) -> stdiobus::BusConfig {
        self.marks += 1;
        one(&self
            .ledger
            .causes(Place {
                bus,
                pool: Pool::Moving,
            })
            .reloaded);
        self.setup.config(bus, self.marks)
    }

    fn pick(&self, which: u64) -> Option<Running> {
        let running = self.witness.running();
        let count = running.len() as u64;
        (count > 0).then(|| running[(which % count) as usize])
    }
}

async fn stall(worker: Running, time: Duration, witness: Arc<Witness>) {
    signal(worker.pid, Signal::SIGSTOP);
    sleep(time).await;
    // It may have been killed; then its connection is gone.
    if witness
        .running()
        .iter()
        .any(|running| running.pid == worker.pid)
    {
        signal(worker.pid, Signal::SIGCONT);
    }
}

/// One that has ended by now is no worse for it.
pub fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
