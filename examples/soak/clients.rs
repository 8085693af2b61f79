//! Who uses the buses: tasks with the async client, and clients on sockets.

use std::sync::Arc;
use std::time::Instant;

use stdiobus::StdioBus;
use tokio::task::JoinSet;

use crate::check::Ledger;
use crate::outside::Outside;
use crate::plan::{Bus, Place, Pool};
use crate::socket::Ways;
use crate::tasks::{Handle, Task};

/// How many tasks, and how many clients on sockets, each pool of a bus has.
fn how_many(bus: Bus, pool: Pool) -> (usize, usize) {
    match (bus, pool) {
        (Bus::Native, Pool::Lines) => (6, 2),
        (Bus::Native, Pool::Moving) => (3, 1),
        (Bus::Native, _) => (4, 2),
        (Bus::Program, Pool::Lines) => (2, 3),
        (Bus::Program, _) => (1, 2),
    }
}

enum Way {
    Task(Handle),
    Socket(Ways),
}

struct Actor {
    place: Place,
    way: Way,
    /// How many steps it has taken.
    step: u64,
}

pub struct Clients {
    seed: u64,
    ledger: Arc<Ledger>,
    program: Ways,
    actors: Vec<Actor>,
}

impl Clients {
    pub fn new(seed: u64, ledger: &Arc<Ledger>, program: &Ways) -> Self {
        let (ledger, program, actors) = (Arc::clone(ledger), program.clone(), Vec::new());
        Self {
            seed,
            ledger,
            program,
            actors,
        }
    }

    /// Adds the clients on sockets, of both buses.
    pub fn on_sockets(&mut self, native: &StdioBus) -> Result<(), &'static str> {
        let addresses = native.listen_addrs();
        let unix = addresses
            .iter()
            .find_map(|address| address.unix())
            .ok_or("no Unix socket")?;
        let tcp = addresses
            .iter()
            .find_map(|address| address.tcp())
            .ok_or("no TCP")?;
        let native = Ways {
            unix: unix.to_owned(),
            tcp,
        };
        for (bus, ways) in [(Bus::Native, native), (Bus::Program, self.program.clone())] {
            for pool in Pool::ALL {
                let way = || Way::Socket(ways.clone());
                self.add(Place { bus, pool }, how_many(bus, pool).1, way);
            }
        }
        Ok(())
    }

    /// Adds the tasks that use this handle.
    pub fn tasks(&mut self, bus: Bus, handle: &StdioBus, client: u64) {
        let handle = Handle {
            bus: handle.clone(),
            client,
            is_native: bus == Bus::Native,
            ledger: Arc::clone(&self.ledger),
            seed: self.seed,
        };
        for pool in Pool::ALL {
            let way = || Way::Task(handle.clone());
            self.add(Place { bus, pool }, how_many(bus, pool).0, way);
        }
    }

    fn add(&mut self, place: Place, count: usize, way: impl Fn() -> Way) {
        let actor = || Actor {
            place,
            way: way(),
            step: 0,
        };
        self.actors.extend((0..count).map(|_| actor()));
    }

    /// What the plan has to know of them.
    pub fn actors(&self) -> Vec<(u64, Pool, bool)> {
        let describe = |(number, actor): (usize, &Actor)| {
            let on_socket = matches!(actor.way, Way::Socket(_));
            (number as u64, actor.place.pool, on_socket)
        };
        self.actors.iter().enumerate().map(describe).collect()
    }

    /// Lets all of them take their steps until the time is over.
    pub async fn round(&mut self, until: Instant) {
        let mut running = JoinSet::new();
        for (number, actor) in self.actors.iter().enumerate() {
            let (id, place, step) = (number as u64, actor.place, actor.step);
            match &actor.way {
                Way::Task(handle) => {
                    let handle = handle.clone();
                    let task = Task::run(handle, place, id, step, until);
                    running.spawn(async move { (number, task.await) });
                }
                Way::Socket(ways) => {
                    let (ways, ledger) = (ways.clone(), Arc::clone(&self.ledger));
                    let seed = self.seed;
                    let client = Outside {
                        place,
                        ways,
                        actor: id,
                        seed,
                        ledger,
                    };
                    running.spawn(async move { (number, client.run(step, until).await) });
                }
            }
        }
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok((number, step)) => self.actors[number].step = step,
                Err(panic) => {
                    let text = format!("a client has failed: {panic}");
                    self.ledger.violates(&self.ledger.lost, text);
                }
            }
        }
    }
}
