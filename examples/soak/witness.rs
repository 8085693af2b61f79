//! What workers read, as they tell it themselves, each over a connection of its own: no message
//! reaches two workers or one of them twice, and each session's come in the order they were sent.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::check::Ledger;
use crate::plan::{Bus, Place, Pool};

/// A worker that runs.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    pub pid: u32,
    pub place: Place,
}

/// Where a session's messages have been seen.
#[derive(Debug)]
struct Route {
    worker: u64,
    /// The last message there.
    last: u64,
    /// The workers that it has left, each with the first message that went elsewhere.
    left: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Seen {
    workers: HashMap<u64, Running>,
    /// A bit for each nonce.
    nonces: Vec<u64>,
    routes: HashMap<u64, Route>,
    started: u64,
}

#[derive(Debug)]
pub struct Witness {
    seen: Mutex<Seen>,
    ledger: Arc<Ledger>,
}

impl Witness {
    pub fn listen(
        path: &Path,
        ledger: Arc<Ledger>,
    ) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let listener = UnixListener::bind(path)?;
        let witness = Arc::new(Witness {
            seen: Mutex::default(),
            ledger,
        });
        let accepting = Arc::clone(&witness);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&accepting).hear(stream));
            }
        });
        Ok((witness, task))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workers that run now, in the order of their process ids.
    pub fn running(&self) -> Vec<Running> {
        let mut running: Vec<_> = self.lock().workers.values().copied().collect();
        running.sort_by_key(|worker| worker.pid);
        running
    }

    /// How many workers have ever started.
    pub fn started(&self) -> u64 {
        self.lock().started
    }

    pub fn has_seen(&self, nonce: u64) -> bool {
        let (word, bit) = place(nonce);
        self.lock()
            .nonces
            .get(word)
            .is_some_and(|word| word & bit != 0)
    }

    /// Sessions are of one round.
    pub fn forget_sessions(&self) {
        self.lock().routes.clear();
    }

    async fn hear(self: Arc<Self>, stream: UnixStream) {
        let mut lines = BufReader::new(stream).lines();
        let mut me = 0;
        // An error is the end of a worker that was killed.
        while let Ok(Some(line)) = lines.next_line().await {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["hello", bus, pool, pid] => me = self.begin(bus, pool, pid),
                [nonce, session, seq] => {
                    let number = |text: &str| text.parse().unwrap_or(0);
                    self.note(me, number(nonce), number(session), number(seq));
                }
                _ => {}
            }
        }
        self.lock().workers.remove(&me);
    }

    fn begin(&self, bus: &str, pool: &str, pid: &str) -> u64 {
        let bus = Bus::ALL.into_iter().find(|b| b.name() == bus);
        let pool = Pool::ALL.into_iter().find(|p| p.name() == pool);
        let (Some(bus), Some(pool), Ok(pid)) = (bus, pool, pid.parse()) else {
            return 0;
        };
        let place = Place { bus, pool };
        let mut seen = self.lock();
        seen.started += 1;
        let me = seen.started;
        seen.workers.insert(me, Running { pid, place });
        me
    }

    fn note(&self, worker: u64, nonce: u64, session: u64, seq: u64) {
        let mut seen = self.lock();
        let (word, bit) = place(nonce);
        if seen.nonces.len() <= word {
            seen.nonces.resize(word + 1, 0);
        }
        if seen.nonces[word] & bit != 0 {
            let text = format!("message {nonce} reached a worker twice");
            self.ledger.violates(&self.ledger.duplicated, text);
        }
        seen.nonces[word] |= bit;
        if session == 0 {
            return;
        }
        let disordered = |text: String| {
            let text = format!("session {session}, message {seq}: {text}");
            self.ledger.violates(&self.ledger.disordered, text);
        };
        let Some(route) = seen.routes.get_mut(&session) else {
            let left = Vec::new();
            let route = Route {
                worker,
                last: seq,
                left,
            };
            seen.routes.insert(session, route);
            return;
        };
        if let Some((_, until)) = route.left.iter().find(|(left, _)| *left == worker) {
            // What a worker had read before the session went elsewhere may be heard of late.
            if seq > *until {
                disordered(format!(
                    "is back with worker {worker}, which it left at {until}"
                ));
            }
        } else if worker != route.worker {
            if seq < route.last {
                disordered(format!("comes to another worker after {}", route.last));
            }
            let former = std::mem::replace(&mut route.worker, worker);
            route.left.push((former, seq));
            route.last = seq;
        } else if seq <= route.last {
            disordered(format!("comes after {}", route.last));
        } else {
            route.last = seq;
        }
    }
}

fn place(nonce: u64) -> (usize, u64) {
    ((nonce / 64) as usize, 1 << (nonce % 64))
}
