//! A load through the client without async: a thread for each request in flight,
//! since each of its calls waits for its answer.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use stdiobus::blocking::StdioBus;

use super::load::Load;

/// A call needs little, and there may be thousands.
const STACK: usize = 256 << 10;

pub(super) fn run(bus: &StdioBus, load: &Arc<Load>) {
    let mut threads = Vec::new();
    for _ in 0..load.inflight {
        match spawn(bus.clone(), Arc::clone(load)) {
            Ok(thread) => threads.push(thread),
            Err(error) => load.failed(format!("{} threads, and no more: {error}", threads.len())),
        }
    }
    for thread in threads {
        // A panic has been reported by the panic hook.
        if thread.join().is_err() {
            load.failed("a thread has panicked".into());
        }
    }
}

fn spawn(bus: StdioBus, load: Arc<Load>) -> io::Result<thread::JoinHandle<()>> {
    let thread = thread::Builder::new().name("caller".into());
    thread.stack_size(STACK).spawn(move || ask(&bus, &load))
}

fn ask(bus: &StdioBus, load: &Load) {
    let work = &load.work;
    loop {
        let options = work.options(load.next_session());
        let sent = Instant::now();
        let result = bus.request_with(&work.method, &work.params, options);
        load.took(sent, result);
        if !load.goes_on() {
            return;
        }
    }
}
