//! Back-pressure measured: peers that misbehave beside peers that don't. A file
//! of its own, and one test at a time, because others would be in the figures.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{BOUND, Client, Program, alone, resident, zoo};
use serde_json::{Value, json};

const UNIX: &[&str] = &["--unix", "{dir}/bus.sock", "--log-level", "debug"];
const MIB: u64 = 1 << 20;

/// Held by the test that measures.
static MEASURING: Mutex<()> = Mutex::new(());

/// Runs one test alone in its process, and alone on the machine as far as this
/// file is concerned.
fn alone_and_quiet(test: impl FnOnce()) {
    let _turn = MEASURING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    alone(test);
}

/// A connection that reads only when it is told to.
fn connect(bus: &Program) -> UnixStream {
    let socket = UnixStream::connect(&bus.unix_paths()[0]).expect("the bus listens");
    socket.set_read_timeout(Some(BOUND)).unwrap();
    socket.set_write_timeout(Some(BOUND)).unwrap();
    socket
}

/// Requests answered in a second, to a pool, by clients that each keep 16 of them open.
fn rate(clients: &mut [Client], pool: &str, duration: Duration) -> f64 {
    let answered = AtomicU64::new(0);
    let start = Instant::now();
    let request = format!(r#"{{"id":1,"pool":"{pool}","method":"echo","params":[1,2,3]}}"#);
    thread::scope(|scope| {
        for client in clients {
            let (answered, request) = (&answered, &request);
            scope.spawn(move || {
                for _ in 0..16 {
                    client.send(request);
                }
                let mut open = 16;
                while open > 0 {
                    let answer = client.receive();
                    assert!(answer.contains("\"result\":[1,2,3]"), "{answer}");
                    answered.fetch_add(1, Ordering::Relaxed);
                    open -= 1;
                    if start.elapsed() < duration {
                        client.send(request);
                        open += 1;
                    }
                }
            });
        }
    });
    answered.into_inner() as f64 / start.elapsed().as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn pools(ids_and_modes: &[(&str, &str)], limits: Value) -> String {
    let pool = |(id, mode): &(&str, &str)| json!({"id": id, "command": zoo(), "args": [mode]});
    let pools: Vec<_> = ids_and_modes.iter().map(pool).collect();
    json!({"pools": pools, "limits": limits}).to_string()
}

/// Sends to a pool as fast as the bus takes it, and reads all answers; until it is told to stop.
fn flood(mut writer: UnixStream, stop: &AtomicBool) -> u64 {
    let reader = writer.try_clone().unwrap();
    thread::scope(|scope| {
        let answers = scope.spawn(move || {
            BufReader::with_capacity(1 << 16, reader)
                .split(b'\n')
                .map_while(Result::ok)
                .count() as u64
        });
        let burst = "{\"id\":1,\"pool\":\"flooded\",\"method\":\"echo\"}\n".repeat(100);
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            writer.write_all(burst.as_bytes()).expect("taken");
            sent += 100;
        }
        writer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(answers.join().unwrap(), sent, "each ends once");
        sent
    })
}

#[test]
fn a_client_that_floods_does_not_starve_others() {
    alone_and_quiet(|| {
        let config = pools(&[("flooded", "echo"), ("good", "echo")], json!({}));
        let bus = Program::start(&config, UNIX);
        let mut good = bus.unix_client();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (flooder, stop) = (connect(&bus), &stop);
            let flooding = scope.spawn(move || flood(flooder, stop));
            let mut waits = Vec::new();
            for id in 0..50 {
                let asked = Instant::now();
                let answer = good.ask(&format!(
                    r#"{{"id":{id},"pool":"good","method":"echo","params":{id}}}"#
                ));
                assert_eq!(answer["result"], id);
                waits.push(asked.elapsed().as_secs_f64());
            }
            stop.store(true, Ordering::Relaxed);
            let sent = flooding.join().unwrap();
            assert!(sent > 5000, "{sent} are no flood");
            // Tens of thousands of the flood's requests are waiting; the others don't stand behind them.
            let wait = median(waits);
            eprintln!("{sent} requests of the flood; others waited {wait:.3} s");
            assert!(wait < 2.0, "{wait} s");
        });
    });
}

/// Fills the queue of a worker that doesn't read until a request is refused.
fn fill(client: &mut Client) {
    let blob = "x".repeat(100_000);
    for id in 0..100 {
        client.send(&format!(
            r#"{{"id":{id},"pool":"deaf","method":"m","params":"{blob}"}}"#
        ));
    }
    is_overloaded(&client.receive_json());
}

fn is_overloaded(answer: &Value) {
    assert_eq!(answer["error"]["code"], -32012, "{answer}");
    assert_eq!(answer["error"]["data"]["reason"], "overloaded", "{answer}");
    assert_eq!(answer["error"]["data"]["sent"], false, "{answer}");
}

#[test]
fn a_stuck_client_and_a_stuck_worker_cost_the_others_nothing() {
    alone_and_quiet(|| {
        let limits = json!({"max_output_queue": 4 * MIB});
        let config = pools(&[("good", "echo"), ("deaf", "deaf")], limits);
        // Two of them, so that the two rates can be measured in turns.
        let (quiet, mut troubled) = (Program::start(&config, UNIX), Program::start(&config, UNIX));
        let mut quiet_clients = [quiet.unix_client(), quiet.unix_client()];
        let mut good_clients = [troubled.unix_client(), troubled.unix_client()];
        rate(&mut quiet_clients, "good", Duration::from_millis(200)); // warm
        let before = resident(troubled.pid());

        // One client that never reads goes over its cap; one stays just below it.
        let mut over = connect(&troubled);
        for id in 0..100 {
            let request = format!(
                "{{\"id\":{id},\"pool\":\"good\",\"method\":\"big\",\"params\":{{\"n\":100000}}}}\n"
            );
            if over.write_all(request.as_bytes()).is_err() {
                break;
            }
        }
        troubled.wait_for_log("disconnected: overflow");
        let mut below = connect(&troubled);
        below
            .write_all(
                b"{\"id\":1,\"pool\":\"good\",\"method\":\"big\",\"params\":{\"n\":3000000}}\n",
            )
            .unwrap();
        // Two clients fill the queue of the worker that never reads: half of it each.
        let mut fillers = [troubled.unix_client(), troubled.unix_client()];
        fillers.iter_mut().for_each(fill);

        let slice = Duration::from_millis(80);
        rate(&mut good_clients, "good", slice); // until the worker has done what the others asked
        let mut ratios = Vec::new();
        for _ in 0..5 {
            let (mut without, mut with) = (0.0, 0.0);
            for _ in 0..5 {
                without += rate(&mut quiet_clients, "good", slice);
                with += rate(&mut good_clients, "good", slice);
            }
            ratios.push(with / without);
        }
        eprintln!("with both / without: {ratios:.2?}");
        assert!(median(ratios) >= 0.8);

        // 4 MiB for the worker, 4 for the client, and what a few messages in flight take.
        let grown = resident(troubled.pid()).saturating_sub(before);
        eprintln!("grown by {grown} bytes");
        assert!(grown < 2 * 4 * MIB + 8 * MIB, "{grown} bytes");
    });
}
