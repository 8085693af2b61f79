//! A long test of everything at once: each request ends exactly once, whatever breaks.
//!
//! `cargo build --release --bin stdio_bus`, then
//! `cargo run --release --example soak -- [--seed N] [--minutes M | --seconds S] [--interval S]`
//!
//! Two buses run side by side, one in this process and one as the program `stdio_bus`, with workers
//! that are this program again. Tasks use both through the async client, clients on Unix sockets and
//! TCP use them in the clear, and a plan made of the seed says what each of them does, and which
//! workers are killed, stopped and replaced meanwhile. A checker knows each request and how it ended,
//! and a witness hears from the workers what reached them.
//!
//! At the end of each interval (10 seconds unless set, at most 30) everything comes to rest: nothing may
//! be pending then, and descriptors, threads and processes have to be as many as the first time. The
//! same seed is the same plan, whose digest is printed; what meets what in it is up to the scheduler, so
//! a run is repeated, not replayed.
//!
//! The exit status is 1 where anything was lost, duplicated, misdelivered, out of order, without a
//! reason, or left behind.

mod check;
mod clients;
mod faults;
mod figures;
mod outside;
mod plan;
mod program;
mod quiet;
mod report;
mod setup;
mod socket;
mod tasks;
mod witness;
mod worker;

use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use check::Ledger;
use clients::Clients;
use faults::Injector;
use figures::Figures;
use plan::{Bus, Pool};
use program::Program;
use quiet::Levels;
use setup::Setup;
use stdiobus::{BackendMode, Listen, RemoteOptions, StdioBus};
use tokio::runtime;
use witness::Witness;

type Error = Box<dyn std::error::Error>;

/// The longest interval, in seconds: sessions are of one, and the buses forget those that are unused for
/// twice as long.
const LONGEST: u64 = 30;

/// What the command line says.
struct Args {
    seed: u64,
    time: Duration,
    interval: Duration,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut parsed = Args {
            seed: now.as_secs(),
            time: Duration::from_secs(60),
            interval: Duration::from_secs(10),
        };
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number: u64 = value.parse()?;
            match name.as_str() {
                "--seed" => parsed.seed = number,
                "--minutes" => parsed.time = Duration::from_secs(number * 60),
                "--seconds" => parsed.time = Duration::from_secs(number),
                "--interval" => parsed.interval = Duration::from_secs(number.clamp(1, LONGEST)),
                _ => return Err(format!("{name} is no option").into()),
            }
        }
        Ok(parsed)
    }
}

fn main() -> Result<ExitCode, Error> {
    let args: Vec<_> = env::args().skip(1).collect();
    if let [word, witness, bus, pool] = &args[..]
        && word == "worker"
    {
        let pool = Pool::ALL
            .into_iter()
            .find(|p| p.name() == pool)
            .ok_or("no such pool")?;
        worker::run(witness, bus, pool)?;
        return Ok(ExitCode::SUCCESS);
    }
    let args = Args::parse(args.into_iter())?;
    println!("seed {}", args.seed);
    // As many threads on every machine, so that they can be counted.
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let ledger = Arc::new(Ledger::default());
    runtime.block_on(soak(&args, &ledger))?;
    Ok(report::outcome(args.seed, &ledger))
}

async fn soak(args: &Args, ledger: &Arc<Ledger>) -> Result<(), Error> {
    let dir = tempfile::Builder::new().prefix("soak-").tempdir()?;
    let setup = Setup::new(dir.path())?;
    let (witness, accepting) = Witness::listen(&setup.witness(), Arc::clone(ledger))?;
    // What the runtime opens for children it keeps; so that comes before the first figures.
    tokio::process::Command::new("true").status().await?;
    let me = std::process::id();
    let before = Figures::of(me);

    let mut program = Program::start(&setup).await?;
    let (native, native_client) = start_native(&setup, ledger).await?;
    let (remote, remote_client) = start_remote(&program, ledger).await?;
    let mut clients = Clients::new(args.seed, ledger, &program.ways);
    clients.on_sockets(&native)?;
    clients.tasks(Bus::Native, &native, native_client);
    clients.tasks(Bus::Program, &remote, remote_client);
    println!(
        "plan {:016x}, {} clients",
        plan::digest(args.seed, &clients.actors()),
        clients.actors().len()
    );

    let mut injector = Injector {
        seed: args.seed,
        ledger: Arc::clone(ledger),
        witness: Arc::clone(&witness),
        native: native.clone(),
        setup: setup.clone(),
        marks: 0,
        step: 0,
    };
    let mut levels = [
        Levels::of("native", me),
        Levels::of("program", program.pid()),
    ];
    let begin = Instant::now();
    while begin.elapsed() < args.time && ledger.is_clean() {
        let until = Instant::now() + args.interval.min(args.time.saturating_sub(begin.elapsed()));
        tokio::join!(clients.round(until), injector.run(&mut program, until));
        quiet::settle(&native, &remote, &program, ledger).await;
        quiet::match_answers(&witness, ledger).await;
        ledger.balance();
        let figures = [levels[0].take(ledger).await, levels[1].take(ledger).await];
        report::interval(begin.elapsed(), ledger, &figures);
    }
    levels.iter().for_each(|level| level.check_memory(ledger));
    let restarts = report::restarts(&native, &program).await;
    if !ledger.is_clean() {
        report::context(&program);
    }

    drop(clients);
    drop(injector);
    remote.stop().await?;
    native.stop().await?;
    drop((remote, native));
    let ended = program.stop().await?;
    accepting.abort();
    report::check_end(&setup, ledger, ended, before).await;
    report::table(ledger, &restarts, witness.started());
    Ok(())
}

async fn start_native(setup: &Setup, ledger: &Arc<Ledger>) -> Result<(StdioBus, u64), Error> {
    let (client, asked) = (ledger.number(), Arc::clone(ledger));
    let bus = StdioBus::builder()
        .config(setup.config(Bus::Native, 0))
        .listen(Listen::tcp("127.0.0.1", 0))
        .listen(Listen::unix(setup.path("native")))
        .timeout(tasks::LIMIT)
        // So little that tasks often wait for room.
        .max_in_flight_bytes(16 << 10)
        .on_request(move |request| {
            let answer = tasks::answer(&request, client, &asked);
            async move { answer }
        })
        .build()?;
    bus.start().await?;
    Ok((bus, client))
}

async fn start_remote(program: &Program, ledger: &Arc<Ledger>) -> Result<(StdioBus, u64), Error> {
    let (client, asked) = (ledger.number(), Arc::clone(ledger));
    let bus = StdioBus::builder()
        .backend(BackendMode::Remote(RemoteOptions::unix(&program.ways.unix)))
        .timeout(tasks::LIMIT)
        .on_request(move |request| {
            let answer = tasks::answer(&request, client, &asked);
            async move { answer }
        })
        .build()?;
    bus.start().await?;
    Ok((bus, client))
}
