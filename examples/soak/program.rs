//! The program `stdio_bus` as a process of its own.

use std::collections::VecDeque;
use std::fs;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::faults::signal;
use crate::plan::Bus;
use crate::setup::Setup;
use crate::socket::Ways;

/// How long the program may take for anything that it is told.
const BOUND: Duration = Duration::from_secs(30);
/// Lines of its log that are kept.
const KEPT: usize = 60;

/// Its log: the last lines, and how many there have been.
#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<String>,
    count: u64,
}

pub struct Program {
    child: Child,
    log: Arc<Mutex<Log>>,
    written: watch::Receiver<u64>,
    setup: Setup,
    pub ways: Ways,
}

impl Program {
    pub async fn start(setup: &Setup) -> Result<Program, String> {
        let text = |error: std::io::Error| error.to_string();
        let config = setup.config(Bus::Program, 0).to_json();
        fs::write(setup.path("config.json"), config).map_err(text)?;
        let unix = setup.path("program");
        let mut child = Command::new(setup.stdio_bus()?)
            .arg("--config")
            .arg(setup.path("config.json"))
            .arg("--unix")
            .arg(&unix)
            .args(["--tcp", "127.0.0.1:0", "--admin"])
            .arg(setup.path("admin"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(text)?;
        let log = Arc::new(Mutex::new(Log::default()));
        let (tell, written) = watch::channel(0);
        let stderr = child.stderr.take().ok_or("it has no stderr")?;
        tokio::spawn(follow(stderr, Arc::clone(&log), tell));
        let tcp = "0.0.0.0:0".parse().map_err(|_| "no address")?;
        let ways = Ways { unix, tcp };
        let setup = setup.clone();
        let mut program = Program {
            child,
            log,
            written,
            setup,
            ways,
        };
        program.wait_for("entering main loop", 0).await?;
        let line = program.wait_for("listening on tcp ", 0).await?;
        let address = line.rsplit(' ').next().and_then(|text| text.parse().ok());
        program.ways.tcp = address.ok_or_else(|| format!("no address: {line}"))?;
        Ok(program)
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    fn count(&self) -> u64 {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count
    }

    /// The first line with this text after so many.
    async fn wait_for(&mut self, text: &str, after: u64) -> Result<String, String> {
        let log = Arc::clone(&self.log);
        let find = || {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let new = log.count.saturating_sub(after) as usize;
            let skip = log.lines.len().saturating_sub(new);
            log.lines
                .iter()
                .skip(skip)
                .find(|line| line.contains(text))
                .cloned()
        };
        let waiting = async {
            loop {
                if let Some(line) = find() {
                    return Ok(line);
                }
                self.written
                    .changed()
                    .await
                    .map_err(|_| "the program has ended".to_owned())?;
            }
        };
        let found = timeout(BOUND, waiting).await;
        found.unwrap_or_else(|_| Err(format!("not within {BOUND:?} in the program's log: {text}")))
    }

    /// Puts another file in the place of the configuration, and says so.
    pub async fn reload(&mut self, config: &str, outcome: &str) -> Result<(), String> {
        let new = self.setup.path("config.new");
        fs::write(&new, config).map_err(|e| e.to_string())?;
        fs::rename(&new, self.setup.path("config.json")).map_err(|e| e.to_string())?;
        let before = self.count();
        signal(self.pid(), Signal::SIGHUP);
        self.wait_for(outcome, before).await.map(drop)
    }

    /// What it tells about itself.
    pub async fn snapshot(&self) -> Result<Value, String> {
        let asking = async {
            let mut stream = BufReader::new(UnixStream::connect(self.setup.path("admin")).await?);
            stream
                .write_all(b"{\"id\":1,\"method\":\"snapshot\"}\n")
                .await?;
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            Ok::<_, std::io::Error>(line)
        };
        let line = timeout(BOUND, asking)
            .await
            .map_err(|_| "no snapshot in time")?;
        let line = line.map_err(|e| format!("no snapshot: {e}"))?;
        let answer: Value = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        Ok(answer["result"].clone())
    }

    /// Lets it drain and end.
    pub async fn stop(mut self) -> Result<ExitStatus, String> {
        signal(self.pid(), Signal::SIGTERM);
        let ended = timeout(BOUND, self.child.wait()).await;
        let ended = ended.map_err(|_| format!("the program has not ended within {BOUND:?}"))?;
        ended.map_err(|e| e.to_string())
    }

    pub fn last_lines(&self) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.lines.iter().cloned().collect()
    }
}

async fn follow(stderr: ChildStderr, log: Arc<Mutex<Log>>, tell: watch::Sender<u64>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.lines.len() == KEPT {
            log.lines.pop_front();
        }
        log.lines.push_back(line);
        log.count += 1;
        let count = log.count;
        drop(log);
        tell.send_replace(count);
    }
}
