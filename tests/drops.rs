//! The last handle of a bus is dropped, wherever the bus is in its life and wherever that happens:
//! the drop returns at once, nobody panics, all that was open ends, and no process is left.

mod common;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::backends::{Over, Setup};
use common::client::{alone_without_panics, assert_shutting_down, begin, block_on, forever};
use common::peer::kill_now;
use common::{BOUND, alone, children, open_tokios_sockets, runs, wait_until, zoo_pool};
use serde_json::{Value, json};
use stdiobus::{
    BackendType, BusConfig, BusState, ErrorCode, EventStream, NotificationStream, PoolConfig,
    Request, ResponseStream, StateChanges, StdioBus, StdioBusBuilder, StreamEvent, blocking,
};
use tokio::io::AsyncReadExt;
use tokio::runtime::{self, Runtime};

/// The bus under test.
fn bus(builder: StdioBusBuilder) -> StdioBus {
    builder.build().expect("valid")
}

/// The same, without async.
fn blocking_bus(builder: StdioBusBuilder) -> blocking::StdioBus {
    builder.build_blocking().expect("valid")
}

// ---- a bus on its way --------------------------------------------------------------------------

/// Where a bus is when its last handle is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Created,
    Starting,
    Running,
    Asking,
    Streaming,
    Draining,
    Stopping,
    Stopped,
}

use Stage::*;

const STAGES: [Stage; 8] = [
    Created, Starting, Running, Asking, Streaming, Draining, Stopping, Stopped,
];

/// Those in which there is a bus thread that can be held up by what it logs.
const LIVELY: [Stage; 6] = [Starting, Running, Asking, Streaming, Draining, Stopping];

/// What is left to look at when the bus has been dropped.
struct Open {
    /// Its workers, and their children.
    processes: Vec<u32>,
    asked: Option<Request>,
    stream: Option<ResponseStream>,
    notes: NotificationStream,
    events: EventStream,
    states: StateChanges,
}

/// Two pools: one whose worker has a child, and one whose worker can be spared.
fn config(stage: Stage) -> BusConfig {
    // A stop that takes a while.
    let stays = (stage == Stopping).then_some("ignore-eof");
    let modes: Vec<_> = ["fork"].into_iter().chain(stays).collect();
    let mut spare = zoo_pool(&["echo"]);
    spare.id = "spare".into();
    let config = BusConfig::new().pool(zoo_pool(&modes)).pool(spare);
    config.default_pool("zoo")
}

fn builder(stage: Stage) -> StdioBusBuilder {
    StdioBus::builder().config(config(stage))
}

/// Brings a bus as far as this stage. A start goes on until the bus thread logs something.
async fn reach(bus: &StdioBus, stage: Stage) -> Open {
    let mut open = Open {
        processes: Vec::new(),
        asked: None,
        stream: None,
        notes: bus.subscribe_notifications(),
        events: bus.events(),
        states: bus.state_changes(),
    };
    match stage {
        Created => return open,
        Starting => {
            begin(bus.start());
            return open;
        }
        _ => bus.start().await.expect("starts"),
    }
    if let Ok(workers) = bus.workers().await {
        open.processes = workers.iter().filter_map(|worker| worker.pid).collect();
    }
    let echo = bus.request("echo", ()).await.expect("answered");
    let grandchild = echo["grandchild"].as_u64().expect("a process id");
    open.processes.push(grandchild as u32);
    match stage {
        Asking | Draining => {
            let mut asked = bus.request_with("hold", (), forever());
            begin(&mut asked);
            // Whoever asks for this is served after it.
            assert_eq!(bus.stats().await.expect("counted").pending, 1);
            open.asked = Some(asked);
        }
        Streaming => {
            let params = json!({"texts": ["a"], "hold": true});
            let mut stream = bus.stream_request_with("session/prompt", params, forever());
            let first = stream.next().await;
            assert!(matches!(first, Some(Ok(StreamEvent::Chunk(_)))));
            open.stream = Some(stream);
        }
        _ => {}
    }
    match stage {
        Draining => begin(bus.drain(BOUND)),
        Stopping => begin(bus.stop_with_timeout(Duration::from_secs(3))),
        Stopped => drop(bus.stop().await.expect("stops")),
        _ => {}
    }
    if matches!(stage, Draining | Stopping) {
        // A connection is closed at once.
        let state = open.states.reached(BusState::Stopping).await;
        assert!(state == BusState::Stopping || bus.backend_type() == BackendType::Remote);
    }
    open
}

/// Everything ends, once nobody holds the bus any more.
async fn assert_ends(mut open: Open) {
    if let Some(asked) = open.asked.take() {
        assert_shutting_down(&asked.await.expect_err("an end"));
    }
    if let Some(mut stream) = open.stream.take() {
        let end = stream.next().await.expect("an end");
        assert_shutting_down(&end.expect_err("an end"));
        assert!(stream.next().await.is_none());
    }
    while open.notes.next().await.is_some() {}
    while open.events.next().await.is_some() {}
    assert_eq!(
        open.states.reached(BusState::Stopped).await,
        BusState::Stopped
    );
    assert_processes_end(&open.processes);
}

/// Grandchildren may be left to a process that doesn't look whether they have ended.
fn assert_processes_end(processes: &[u32]) {
    wait_until(&format!("{processes:?} have ended"), BOUND, || {
        !processes.iter().any(|pid| runs(*pid))
    });
}

async fn drop_at(over: Over, stage: Stage) {
    eprintln!("{over:?} {stage:?}");
    let setup = over.build(config(stage), |builder| builder).await;
    let Setup { bus, host, dir } = setup;
    let open = reach(&bus, stage).await;
    drop(bus);
    // What it has started ends with it, or with its host.
    drop(host);
    assert_ends(open).await;
    drop(dir);
}

/// Every stage of every backend.
fn everywhere() -> impl Iterator<Item = (Over, Stage)> {
    let all = [Over::Native, Over::Subprocess, Over::Unix, Over::Tcp];
    all.into_iter()
        .flat_map(|over| STAGES.map(|stage| (over, stage)))
}

// ---- where it is dropped -----------------------------------------------------------------------

#[test]
fn a_bus_can_be_dropped_at_every_stage_without_a_runtime() {
    alone_without_panics(|| {
        for (over, stage) in everywhere() {
            block_on(drop_at(over, stage));
        }
    });
}

#[test]
fn a_bus_can_be_dropped_at_every_stage_in_a_runtime_of_one_thread() {
    alone_without_panics(|| {
        for (over, stage) in everywhere() {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(drop_at(over, stage));
        }
    });
}

#[test]
fn a_bus_can_be_dropped_at_every_stage_by_a_task_of_several_threads() {
    alone_without_panics(|| {
        for (over, stage) in everywhere() {
            let task = async move { tokio::spawn(drop_at(over, stage)).await };
            threads().block_on(task).expect("no panic");
        }
    });
}

fn threads() -> Runtime {
    let mut builder = runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(2).enable_all();
    builder.build().expect("a runtime")
}

#[test]
fn a_bus_can_outlive_the_runtime_it_was_built_in() {
    alone_without_panics(|| {
        for stage in STAGES {
            eprintln!("{stage:?}");
            let runtime = threads();
            let (bus, open) = runtime.block_on(async {
                let bus = bus(builder(stage).on_request(|_| async { Ok(Value::Null) }));
                let open = reach(&bus, stage).await;
                bus.on_notification(|_| {}).expect("registered").keep();
                (bus, open)
            });
            drop(runtime);
            if stage == Running {
                let echo = block_on(bus.request("echo", json!([1]))).expect("answered");
                assert_eq!(echo["params"], json!([1]));
            }
            drop(bus);
            block_on(assert_ends(open));
        }
    });
}

#[test]
fn a_runtime_that_ends_may_drop_the_bus_of_a_task() {
    alone_without_panics(|| {
        for stage in STAGES {
            eprintln!("{stage:?}");
            let runtime = threads();
            let open = runtime.block_on(async {
                let bus = bus(builder(stage).on_request(|_| async { Ok(Value::Null) }));
                let open = reach(&bus, stage).await;
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(bus);
                });
                open
            });
            drop(runtime);
            block_on(assert_ends(open));
        }
    });
}

#[test]
fn a_bus_can_be_dropped_by_a_panic() {
    open_tokios_sockets();
    alone(|| {
        for stage in STAGES {
            let (bus, open) = block_on(async {
                let bus = bus(builder(stage));
                let open = reach(&bus, stage).await;
                (bus, open)
            });
            let panics = thread::spawn(move || {
                let _bus = bus;
                std::panic::resume_unwind(Box::new("with a bus in hand"));
            });
            panics.join().expect_err("it panics");
            block_on(assert_ends(open));
        }
    });
}

#[test]
fn what_this_process_serves_and_asks_as_a_client_ends_with_a_drop() {
    alone_without_panics(|| {
        let runtime = threads();
        runtime.block_on(async {
            let pool = PoolConfig::in_process("own");
            let bus = bus(StdioBus::builder().pool(pool));
            bus.start().await.expect("starts");
            let (serving, mut served) = tokio::sync::mpsc::channel::<()>(1);
            let service = move |_| {
                let serving = serving.clone();
                async move {
                    serving.send(()).await.expect("the test listens");
                    std::future::pending().await
                }
            };
            let guard = bus.register_worker("own", service).await;
            let guard = guard.expect("registered");
            let asked = bus.try_request_with("hold", (), forever()).expect("room");
            served.recv().await.expect("it is called");
            let mut client = bus.connect_io(None).await.expect("connected");
            drop(bus);
            assert_shutting_down(&asked.await.expect_err("an end"));
            let mut text = String::new();
            let end = client.read_to_string(&mut text).await;
            assert_eq!((end.expect("read"), text.as_str()), (0, ""));
            assert!(served.recv().await.is_none(), "what it ran is dropped");
            drop(guard);
        });
        let alive = || runtime.metrics().num_alive_tasks();
        wait_until("no task is left", BOUND, || alive() == 0);
    });
}

/// A place from which a bus can be taken to be dropped.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Option<StdioBus>>>);

impl Slot {
    fn drop_bus(&self) {
        let bus = self.0.lock().expect("no panic").take();
        drop(bus);
    }
}

/// The stages at which a worker can still say something, with handlers that run on a thread of the
/// bus's own, and on a runtime.
fn hearing() -> impl Iterator<Item = (Stage, Option<Runtime>)> {
    let stages = [Running, Asking, Streaming, Draining].into_iter();
    stages.flat_map(|stage| [(stage, None), (stage, Some(threads()))])
}

#[test]
fn a_handler_of_requests_can_drop_the_last_handle() {
    alone_without_panics(|| {
        for (stage, runtime) in hearing() {
            eprintln!("{stage:?} {runtime:?}");
            let _inside = runtime.as_ref().map(Runtime::enter);
            let slot = Slot::default();
            let drops = slot.clone();
            let bus = bus(builder(stage).on_request(move |_| {
                let drops = drops.clone();
                async move {
                    drops.drop_bus();
                    Ok(Value::Null)
                }
            }));
            said_while(bus, stage, "ask", &slot);
        }
    });
}

#[test]
fn a_handler_of_requests_can_be_what_holds_the_bus_last() {
    alone_without_panics(|| {
        for (stage, runtime) in hearing() {
            eprintln!("{stage:?} {runtime:?}");
            let _inside = runtime.as_ref().map(Runtime::enter);
            let slot = Slot::default();
            let drops = slot.clone();
            let bus = bus(builder(stage).on_request(move |request| {
                let drops = drops.clone();
                async move {
                    let own = request.bus().expect("it lives");
                    drops.drop_bus();
                    let workers = own.workers().await.expect("listed");
                    Ok(json!(workers.len()))
                }
            }));
            said_while(bus, stage, "ask", &slot);
        }
    });
}

#[test]
fn a_handler_of_notifications_can_drop_the_last_handle() {
    alone_without_panics(|| {
        for (stage, runtime) in hearing() {
            eprintln!("{stage:?} {runtime:?}");
            let _inside = runtime.as_ref().map(Runtime::enter);
            let (bus, slot) = (bus(builder(stage)), Slot::default());
            let drops = slot.clone();
            let handler = bus.on_notification(move |note| {
                if note.method() == "note" {
                    drops.drop_bus();
                }
            });
            handler.expect("registered").keep();
            said_while(bus, stage, "notify", &slot);
        }
    });
}

/// Lets a worker say something at this stage; who hears it drops the bus.
fn said_while(bus: StdioBus, stage: Stage, method: &str, slot: &Slot) {
    let before = if stage == Draining { Asking } else { stage };
    let open = block_on(reach(&bus, before));
    let sleepy = json!({"n": 1, "method": "late", "params": {}});
    let mut states = bus.state_changes();
    let full = slot.0.lock();
    // The handler waits for the slot, so the bus is there when it looks.
    let said = bus.try_request_with(method, sleepy, forever().session_id("other"));
    let said = said.expect("room");
    if stage == Draining {
        begin(bus.drain(BOUND));
        block_on(states.reached(BusState::Stopping));
    }
    *full.expect("no panic") = Some(bus);
    match block_on(said) {
        // It may have been answered before the drop.
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), Some(ErrorCode::TransportError)),
    }
    block_on(assert_ends(open));
}

// ---- while the bus thread is parked ------------------------------------------------------------

/// A sink of log lines that holds up the bus thread, once it is told to.
struct Gate {
    armed: Arc<AtomicBool>,
    entered: Receiver<()>,
    release: Sender<()>,
}

fn gate(builder: StdioBusBuilder) -> (StdioBusBuilder, Gate) {
    let armed = Arc::new(AtomicBool::new(false));
    let ((entering, entered), (release, gate)) = (channel(), channel());
    let (is_armed, gate) = (Arc::clone(&armed), Mutex::new(gate));
    let builder = builder.on_log(move |_, _| {
        if is_armed.swap(false, Ordering::SeqCst) {
            entering.send(()).expect("the test listens");
            // Until something comes, or nothing can any more.
            let _ = gate.lock().expect("no panic").recv();
        }
    });
    let gate = Gate {
        armed,
        entered,
        release,
    };
    (builder, gate)
}

/// Makes the bus log something: of a worker that is gone.
fn provoke_log(open: &Open) {
    let spare = open.processes.get(1).filter(|spare| runs(**spare));
    if let Some(spare) = spare {
        kill_now(*spare);
    }
}

#[test]
fn a_drop_returns_while_the_bus_thread_is_held_up_and_all_ends_later() {
    alone_without_panics(|| {
        for stage in LIVELY {
            eprintln!("{stage:?}");
            let (builder, gate) = gate(builder(stage));
            let bus = bus(builder);
            gate.armed.store(stage == Starting, Ordering::SeqCst);
            let mut open = block_on(reach(&bus, stage));
            if stage != Starting {
                gate.armed.store(true, Ordering::SeqCst);
                provoke_log(&open);
            }
            gate.entered.recv_timeout(BOUND).expect("it is held up");
            if stage == Starting {
                assert_eq!(bus.state(), BusState::Starting);
                open.processes = children(std::process::id());
                assert_eq!(open.processes.len(), 2);
            }
            // That this comes to an end says that it waits for nothing: the bus can't do anything.
            drop(bus);
            assert!(open.states.state() < BusState::Stopped);
            assert!(runs(open.processes[0]));
            gate.release.send(()).expect("it is still held up");
            block_on(assert_ends(open));
        }
    });
}

#[test]
fn whoever_logs_can_drop_the_last_handle() {
    alone_without_panics(|| {
        for stage in LIVELY {
            eprintln!("{stage:?}");
            let (slot, armed) = (Slot::default(), Arc::new(AtomicBool::new(false)));
            let (drops, is_armed) = (slot.clone(), Arc::clone(&armed));
            let bus = bus(builder(stage).on_log(move |_, _| {
                if is_armed.load(Ordering::SeqCst) {
                    drops.drop_bus();
                }
            }));
            let full = slot.0.lock();
            armed.store(stage == Starting, Ordering::SeqCst);
            let open = block_on(reach(&bus, stage));
            *full.expect("no panic") = Some(bus);
            armed.store(true, Ordering::SeqCst);
            provoke_log(&open);
            block_on(assert_ends(open));
        }
    });
}

// ---- while others wait -------------------------------------------------------------------------

#[test]
fn threads_that_wait_for_what_is_open_are_let_go_by_a_drop() {
    alone_without_panics(|| {
        let bus = blocking_bus(StdioBus::builder().pool(zoo_pool(&["fork"])));
        bus.start().expect("starts");
        let pids = processes(&bus);
        let params = json!({"hold": true});
        let mut stream = bus.stream_request_with("session/prompt", params, forever());
        let (mut notes, mut events) = (bus.subscribe_notifications(), bus.events());
        let mut states = bus.state_changes();
        let mut connection = bus.connect_io(None).expect("connected");
        thread::scope(|scope| {
            let stream = scope.spawn(move || stream.next().expect("an end"));
            let notes = scope.spawn(move || notes.next().is_none());
            let events = scope.spawn(move || events.by_ref().last().is_some());
            let states = scope.spawn(move || states.by_ref().last());
            let read = scope.spawn(move || {
                let mut text = String::new();
                connection.read_to_string(&mut text).expect("read")
            });
            while bus.stats().expect("counted").pending == 0 {
                thread::yield_now();
            }
            drop(bus);
            assert_shutting_down(&stream.join().expect("no panic").expect_err("an end"));
            assert!(notes.join().expect("no panic") && events.join().expect("no panic"));
            assert_eq!(states.join().expect("no panic"), Some(BusState::Stopped));
            assert_eq!(read.join().expect("no panic"), 0);
        });
        assert_processes_end(&pids);
    });
}

fn processes(bus: &blocking::StdioBus) -> Vec<u32> {
    let workers = bus.workers().expect("listed");
    let grandchild = bus.request("echo", ()).expect("answered")["grandchild"].as_u64();
    let workers = workers.iter().filter_map(|worker| worker.pid);
    workers.chain(grandchild.map(|pid| pid as u32)).collect()
}

#[test]
fn a_thread_that_waits_for_its_answer_keeps_the_bus_of_others_alive() {
    alone_without_panics(|| {
        let bus = blocking_bus(StdioBus::builder().pool(zoo_pool(&["fork"])));
        bus.start().expect("starts");
        let pids = processes(&bus);
        let own = bus.clone();
        let waits = thread::spawn(move || own.request("sleep", json!({"ms": 200})));
        while bus.stats().expect("counted").pending == 0 {
            thread::yield_now();
        }
        drop(bus);
        let answer = waits.join().expect("no panic").expect("answered");
        assert_eq!(answer, json!({"ms": 200}));
        assert_processes_end(&pids);
    });
}

#[test]
fn handles_can_be_dropped_by_many_threads_at_once() {
    alone_without_panics(|| {
        for _ in 0..20 {
            let bus = bus(builder(Running));
            let open = block_on(reach(&bus, Asking));
            let handles: Vec<_> = (0..8).map(|_| bus.clone()).collect();
            let weak = bus.downgrade();
            drop(bus);
            let threads = handles.into_iter().map(|handle| {
                let weak = weak.clone();
                thread::spawn(move || {
                    let again = weak.upgrade();
                    drop((handle, again));
                })
            });
            for thread in threads.collect::<Vec<_>>() {
                thread.join().expect("no panic");
            }
            assert!(weak.upgrade().is_none());
            block_on(assert_ends(open));
        }
    });
}
