//! A load through the async client: a task for each request in flight, all on
//! one thread.

use std::sync::Arc;
use std::time::Instant;

use stdiobus::StdioBus;
use tokio::task::{JoinSet, yield_now};

use super::load::Load;

pub(super) fn run(bus: &StdioBus, load: &Arc<Load>) {
    match crate::runtime() {
        Ok(runtime) => runtime.block_on(ask_all(bus, load)),
        Err(why) => load.failed(why),
    }
}

async fn ask_all(bus: &StdioBus, load: &Arc<Load>) {
    let mut tasks = JoinSet::new();
    for _ in 0..load.inflight {
        tasks.spawn(ask(bus.clone(), Arc::clone(load)));
    }
    while tasks.join_next().await.is_some() {}
}

async fn ask(bus: StdioBus, load: Arc<Load>) {
    let work = &load.work;
    loop {
        let options = work.options(load.next_session());
        let sent = Instant::now();
        let result = bus.request_with(&work.method, &work.params, options).await;
        if !load.took(sent, result) {
            // What fails at once must not keep the others from running.
            yield_now().await;
        }
        if !load.goes_on() {
            return;
        }
    }
}
