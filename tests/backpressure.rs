//! Clients and workers that are slow, stuck or greedy: what is queued for them is bounded, nothing
//! of it is lost silently, and nobody else waits for them.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use common::{BOUND, Program, alone, resident, wait_until, zoo_config};
use serde_json::{Value, json};

const UNIX: &[&str] = &["--unix", "{dir}/bus.sock", "--log-level", "debug"];
const MIB: u64 = 1 << 20;

fn start_with_limits(limits: Value) -> Program {
    let mut config: Value = serde_json::from_str(&zoo_config(1, &["echo"])).unwrap();
    config["limits"] = limits;
    Program::start(&config.to_string(), UNIX)
}

/// A connection that reads only when it is told to.
fn connect(bus: &Program) -> UnixStream {
    let socket = UnixStream::connect(&bus.unix_paths()[0]).expect("the bus listens");
    socket.set_read_timeout(Some(BOUND)).unwrap();
    socket.set_write_timeout(Some(BOUND)).unwrap();
    socket
}

fn ask_for(socket: &mut UnixStream, id: usize, bytes: usize) -> std::io::Result<()> {
    let request = format!("{{\"id\":{id},\"method\":\"big\",\"params\":{{\"n\":{bytes}}}}}\n");
    socket.write_all(request.as_bytes())
}

// ---- to a client -------------------------------------------------------------------------------

#[test]
fn one_answer_larger_than_the_queue_reaches_a_client_that_reads() {
    alone(|| {
        let bus = start_with_limits(json!({"max_output_queue": MIB}));
        let mut client = bus.unix_client();
        for id in 0..3 {
            let bytes = 9 << 20;
            let answer = client.ask(&format!(
                r#"{{"id":{id},"method":"big","params":{{"n":{bytes}}}}}"#
            ));
            assert_eq!(answer["id"], id);
            assert_eq!(answer["result"].as_str().map(str::len), Some(bytes));
        }
    });
}

#[test]
fn a_client_at_the_cap_is_closed_and_gets_whole_messages_until_then() {
    alone(|| {
        let mut bus = start_with_limits(json!({"max_output_queue": MIB}));
        let mut stuck = connect(&bus);
        for id in 0..200 {
            if ask_for(&mut stuck, id, 20_000).is_err() {
                break; // closed already
            }
        }
        bus.wait_for_log("disconnected: overflow");
        // What had been sent is still there: every line but perhaps the last is whole.
        let mut lines = Vec::new();
        for line in BufReader::new(&stuck).split(b'\n') {
            match line {
                Ok(line) => lines.push(line),
                Err(_) => break,
            }
        }
        lines.pop();
        for (id, line) in lines.iter().enumerate() {
            let answer: Value = serde_json::from_slice(line).expect("a whole message");
            assert_eq!(answer["id"], id, "none is missing before it");
        }
    });
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_closed() {
    alone(|| {
        let mut bus = start_with_limits(json!({"backpressure_timeout_sec": 1}));
        let mut stuck = connect(&bus);
        let start = Instant::now();
        ask_for(&mut stuck, 1, 2_000_000).unwrap();
        bus.wait_for_log("disconnected: timeout");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(990), "{took:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
    });
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    alone(|| {
        let bus = start_with_limits(json!({"backpressure_timeout_sec": 1}));
        let mut slow = connect(&bus);
        ask_for(&mut slow, 1, 4_000_000).unwrap();
        let (start, mut bytes, mut chunk) = (Instant::now(), Vec::new(), vec![0; 100_000]);
        while bytes.last() != Some(&b'\n') {
            let n = slow.read(&mut chunk).expect("it is not closed");
            assert!(n > 0, "closed after {} bytes", bytes.len());
            bytes.extend_from_slice(&chunk[..n]);
            thread::sleep(Duration::from_millis(50)); // how slow it is
        }
        assert!(start.elapsed() > Duration::from_secs(2));
        let answer: Value = serde_json::from_slice(&bytes).expect("a whole message");
        assert_eq!(answer["result"].as_str().map(str::len), Some(4_000_000));
    });
}

// ---- memory ------------------------------------------------------------------------------------

#[test]
fn memory_is_given_back_after_a_burst_of_large_messages() {
    alone(|| {
        let bus = start_with_limits(json!({}));
        let mut clients: Vec<_> = (0..4).map(|_| bus.unix_client()).collect();
        for client in &mut clients {
            client.ask(r#"{"id":1,"method":"echo"}"#);
        }
        let before = resident(bus.pid());
        let blob = "x".repeat(9 << 20);
        let request = format!(r#"{{"id":2,"method":"echo","params":"{blob}"}}"#);
        for _ in 0..3 {
            for client in &mut clients {
                client.send(&request);
            }
            for client in &mut clients {
                let answer = client.receive_json();
                assert_eq!(answer["result"].as_str().map(str::len), Some(9 << 20));
            }
        }
        // 36 MiB were in its hands at a time. What it frees, malloc keeps up to twice the largest
        // message of before it gives it back to the system; what the bus keeps itself is 3 MiB.
        wait_until("the memory is given back", Duration::from_secs(10), || {
            resident(bus.pid()) < before + 24 * MIB
        });
    });
}

// ---- others ------------------------------------------------------------------------------------
