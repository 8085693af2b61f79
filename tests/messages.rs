//! Messages through every way in: nothing is mixed up, cut or changed.

mod common;

use std::collections::HashSet;
use std::io::Write;
use std::os::unix::net::UnixStream;

use common::{Client, Program, alone, alone_async, zoo_config, zoo_pool};
use serde_json::{Value, json};
use stdiobus::StdioBus;

const UNIX_AND_TCP: &[&str] = &["--unix", "{dir}/bus.sock", "--tcp", "127.0.0.1:0"];

/// `len` characters without a period that could hide a part that is lost, doubled or moved.
fn text(len: usize) -> String {
    let mut state = 1u32;
    let letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 24) as u8 % 26)
    };
    (0..len).map(letter).collect()
}

/// Larger than a pipe; larger than any buffer; just below the limit of 10 MiB.
const SIZES: [usize; 3] = [70_000, 1 << 20, 9 << 20];

fn sizes_come_back_intact(client: &mut Client) {
    for size in SIZES {
        let params = format!("{{\"blob\":\"{}\"}}", text(size));
        client.send(&format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"echo","params":{params}}}"#
        ));
        let answer = client.receive();
        let wanted = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{params}}}"#);
        assert!(
            answer == wanted,
            "{size} bytes came back as {} other bytes",
            answer.len()
        );
    }
}

#[test]
fn large_requests_come_back_intact_through_a_unix_socket() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        sizes_come_back_intact(&mut bus.unix_client());
    });
}

#[test]
fn large_requests_come_back_intact_through_tcp() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        sizes_come_back_intact(&mut bus.tcp_client());
    });
}

#[test]
fn large_requests_come_back_intact_through_stdio() {
    alone(|| {
        let (mut bus, mut client) = Program::stdio(&zoo_config(1, &["echo"]));
        sizes_come_back_intact(&mut client);
        client.end();
        assert!(bus.wait().success());
    });
}

#[test]
fn large_requests_come_back_intact_through_the_rust_client() {
    alone_async(|| async {
        let bus = StdioBus::builder()
            .pool(zoo_pool(&["echo"]))
            .build()
            .unwrap();
        bus.start().await.unwrap();
        for size in SIZES {
            let params = json!({"blob": text(size)});
            let answer = bus.request("echo", params.clone()).await.unwrap();
            assert!(answer == params, "{size} bytes came back changed");
        }
        bus.stop().await.unwrap();
    });
}

#[test]
fn large_requests_sent_at_once_are_answered_in_order() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        let mut client = bus.unix_client();
        let params: Vec<_> = SIZES.map(|size| format!("[\"{}\"]", text(size))).into();
        let request =
            |(id, params)| format!("{{\"id\":{id},\"method\":\"echo\",\"params\":{params}}}\n");
        client.send_bytes(
            params
                .iter()
                .enumerate()
                .map(request)
                .collect::<String>()
                .as_bytes(),
        );
        for (id, params) in params.iter().enumerate() {
            let wanted = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{params}}}"#);
            assert!(client.receive() == wanted, "the answer to request {id}");
        }
    });
}

#[test]
fn two_clients_that_use_the_same_id_each_get_their_own_answer() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["slow", "50"]), UNIX_AND_TCP);
        let mut clients = [bus.unix_client(), bus.unix_client(), bus.tcp_client()];
        for round in 0..3 {
            for (number, client) in clients.iter_mut().enumerate() {
                let params = format!("{{\"client\":{number},\"round\":{round}}}");
                client.send(&format!(
                    r#"{{"jsonrpc":"2.0","id":1,"method":"echo","params":{params}}}"#
                ));
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let params = format!("{{\"client\":{number},\"round\":{round}}}");
                assert_eq!(
                    client.receive(),
                    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{params}}}"#)
                );
            }
        }
    });
}

#[test]
fn one_client_that_uses_an_id_twice_gets_both_answers() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["slow", "20"]), UNIX_AND_TCP);
        let mut client = bus.unix_client();
        client.send(r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":["first"]}"#);
        client.send(r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":["second"]}"#);
        assert_eq!(
            client.receive(),
            r#"{"jsonrpc":"2.0","id":1,"result":["first"]}"#
        );
        assert_eq!(
            client.receive(),
            r#"{"jsonrpc":"2.0","id":1,"result":["second"]}"#
        );
    });
}

#[test]
fn the_late_answer_for_a_client_that_left_reaches_nobody() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["slow", "100"]), UNIX_AND_TCP);
        let mut leaver = bus.tcp_client();
        leaver.send(r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":"for the one who left"}"#);
        let mut stayer = bus.unix_client();
        stayer.ask(r#"{"jsonrpc":"2.0","id":2,"method":"echo"}"#); // the first is at the worker too
        leaver.send(r#"{"jsonrpc":"2.0","id":3,"method":"echo","params":"late"}"#);
        drop(leaver);
        let answer = stayer.ask(r#"{"jsonrpc":"2.0","id":3,"method":"echo","params":"mine"}"#);
        assert_eq!(answer["result"], "mine");
        let answer = stayer.ask(r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":"mine too"}"#);
        assert_eq!(answer["result"], "mine too");
    });
}

#[test]
fn every_id_comes_back_as_it_was_written() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        let mut client = bus.unix_client();
        let long = format!("\"{}\"", "x".repeat(300));
        let ids = [
            "0",
            "1",
            "-7",
            "1.0",
            "1e3",
            "12345678901234567890123",
            "\"1\"",
            "\"\"",
            "\"a b\"",
            r#""\u0041""#,
            r#""q\"\\""#,
            "\"\u{e9}\"",
            &long,
        ];
        for id in ids {
            client.send(&format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"echo","params":1}}"#
            ));
            assert_eq!(
                client.receive(),
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":1}}"#)
            );
        }
    });
}

#[test]
fn params_and_results_pass_byte_for_byte() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        let mut client = bus.unix_client();
        let odd = [
            r#"{ "a" : [ 1 , 2.50 , -0 ] , "b":{ } }"#,
            r#"{"n":1e400,"n":12345678901234567890}"#,
            r#"["\ud83d\ude00","\/","{\"id\":9}","}]"]"#,
            r#"{"id":5,"method":"inner","result":1,"sessionId":7}"#,
            "null",
        ];
        for params in odd {
            client.send(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"echo","params":{params}}}"#
            ));
            assert_eq!(
                client.receive(),
                format!(r#"{{"jsonrpc":"2.0","id":1,"result":{params}}}"#)
            );
        }
    });
}

#[test]
fn any_split_of_the_stream_gives_the_same_answers() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        let stream = concat!(
            "\u{feff}{\"id\":1,\"method\":\"echo\",\"params\":\"a\"}\r\n",
            "\n",
            "  \r\n",
            "{\"id\":2,\"method\":\"echo\",\"params\":\"\u{e9}\u{1f600}\"}\n",
        );
        for size in [1, 2, 3, 7, 50] {
            let mut client = bus.tcp_client();
            for part in stream.as_bytes().chunks(size) {
                client.send_bytes(part);
            }
            assert_eq!(client.receive(), r#"{"jsonrpc":"2.0","id":1,"result":"a"}"#);
            assert_eq!(
                client.receive(),
                "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"\u{e9}\u{1f600}\"}"
            );
        }
    });
}

#[test]
fn a_session_stays_on_its_worker_and_comes_back_in_the_answer() {
    alone(|| {
        let bus = Program::start(&zoo_config(4, &["echo"]), UNIX_AND_TCP);
        let mut client = bus.unix_client();
        let mut pid = |session: &str| {
            let frame =
                format!(r#"{{"jsonrpc":"2.0","id":1,"sessionId":"{session}","method":"pid"}}"#);
            let answer = client.ask(&frame);
            assert_eq!(answer["sessionId"], session);
            answer["result"].as_u64().unwrap()
        };
        let first: Vec<_> = (0..8).map(|n| pid(&format!("s{n}"))).collect();
        let again: Vec<_> = (0..8).map(|n| pid(&format!("s{n}"))).collect();
        assert_eq!(first, again);
        assert_eq!(
            first.into_iter().collect::<HashSet<_>>().len(),
            4,
            "sessions are spread"
        );
    });
}

#[test]
fn requests_without_a_session_are_spread_over_the_workers() {
    alone(|| {
        let bus = Program::start(&zoo_config(3, &["echo"]), UNIX_AND_TCP);
        let mut client = bus.unix_client();
        let mut pid =
            |_| client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"pid"}"#)["result"].as_u64();
        let pids: HashSet<_> = (0..9).map(&mut pid).collect();
        assert_eq!(pids.len(), 3);
    });
}

#[test]
fn a_workers_request_reaches_the_client_of_its_session_and_the_answer_goes_back() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        let (mut mine, mut other) = (bus.unix_client(), bus.unix_client());
        other.ask(r#"{"jsonrpc":"2.0","id":1,"sessionId":"other","method":"echo"}"#);

        mine.send(r#"{"jsonrpc":"2.0","id":1,"sessionId":"mine","method":"ask","params":{"sessionId":"mine"}}"#);
        let asked = mine.receive_json();
        assert_eq!(asked["method"], "ask");
        mine.send(
            &json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"allowed": true}}).to_string(),
        );
        let answer = mine.receive_json();
        assert_eq!(
            (&answer["id"], &answer["result"]),
            (&json!(1), &json!({"allowed": true}))
        );

        // The other client has seen nothing of this: its next line is its own next answer.
        assert_eq!(
            other.ask(r#"{"jsonrpc":"2.0","id":2,"method":"echo","params":2}"#)["result"],
            2
        );
    });
}

#[test]
fn notifications_before_an_answer_arrive_before_it_and_in_order() {
    alone(|| {
        let bus = Program::start(&zoo_config(2, &["echo"]), UNIX_AND_TCP);
        let mut client = bus.unix_client();
        client.send(
            r#"{"jsonrpc":"2.0","id":1,"sessionId":"s","method":"notify","params":{"n":500}}"#,
        );
        for i in 0..500 {
            let note = client.receive_json();
            assert_eq!(
                (&note["method"], &note["params"]["i"]),
                (&json!("note"), &json!(i))
            );
        }
        assert_eq!(client.receive_json()["result"]["n"], 500);
    });
}

#[test]
fn a_bad_line_is_answered_and_the_connection_and_the_bus_live() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        let mut client = bus.unix_client();
        let bad = [
            ("this is not JSON", -32700),
            ("{\"id\":1,\"method\":", -32700),
            ("{\"id\":1,\"method\":\"echo\"} trailing", -32700),
            ("17", -32700),
            ("[{\"id\":1,\"method\":\"echo\"}]", -32600),
            ("{\"id\":1}", -32600),
        ];
        for (line, code) in bad {
            assert_eq!(client.ask(line)["error"]["code"], code, "{line}");
            let answer =
                client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":"still here"}"#);
            assert_eq!(answer["result"], "still here");
        }
        let answer = bus
            .tcp_client()
            .ask(r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":1}"#);
        assert_eq!(answer["result"], 1);
    });
}

#[test]
fn a_frame_above_the_limit_is_answered_and_the_connection_lives() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        let mut client = bus.unix_client();
        client.send(&format!(
            r#"{{"jsonrpc":"2.0","id":5,"method":"echo","params":"{}"}}"#,
            text(11 << 20)
        ));
        let answer = client.receive_json();
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
        assert_eq!(answer["error"]["message"], "Message too large");
        assert_eq!(
            client.ask(r#"{"jsonrpc":"2.0","id":6,"method":"echo","params":6}"#)["result"],
            6
        );
    });
}

#[test]
fn a_message_that_names_no_pool_of_several_is_refused_with_the_candidates() {
    alone(|| {
        let pool = |id| json!({"id": id, "command": common::zoo(), "args": ["echo"]});
        let config = json!({"pools": [pool("left"), pool("right")]}).to_string();
        let bus = Program::start(&config, UNIX_AND_TCP);
        let mut client = bus.unix_client();

        let refused = client.ask(r#"{"jsonrpc":"2.0","id":"x","method":"echo"}"#);
        assert_eq!(
            (&refused["id"], &refused["error"]["code"]),
            (&json!("x"), &json!(-32010))
        );
        assert_eq!(refused["error"]["data"]["reason"], "unroutable");
        let text = refused.to_string();
        assert!(text.contains("left") && text.contains("right"), "{text}");

        let refused = client.ask(r#"{"jsonrpc":"2.0","id":2,"pool":"middle","method":"echo"}"#);
        assert_eq!(refused["error"]["code"], -32010);
        let answer =
            client.ask(r#"{"jsonrpc":"2.0","id":3,"pool":"right","method":"echo","params":3}"#);
        assert_eq!(answer["result"], 3);
    });
}

#[test]
fn a_tcp_client_whose_first_frame_is_no_json_is_answered_and_closed() {
    alone(|| {
        let bus = Program::start(&zoo_config(1, &["echo"]), UNIX_AND_TCP);
        let mut browser = bus.tcp_client();
        let answer = browser.ask("POST / HTTP/1.1");
        assert_eq!(answer["error"]["code"], -32700, "{answer}");
        assert!(browser.rest().is_empty());
    });
}

#[test]
fn a_worker_that_reads_nothing_is_overloaded_and_holds_up_nobody_else() {
    alone(|| {
        let pool = |id, mode| json!({"id": id, "command": common::zoo(), "args": [mode]});
        let pools = json!([pool("deaf", "deaf"), pool("echo", "echo")]);
        let limits = json!({"max_output_queue": 1 << 20});
        let bus = Program::start(
            &json!({"pools": pools, "limits": limits}).to_string(),
            UNIX_AND_TCP,
        );
        let (mut greedy, mut other) = (bus.unix_client(), bus.unix_client());

        let blob = text(10_000);
        for id in 0..200 {
            greedy.send(&format!(
                r#"{{"id":{id},"pool":"deaf","method":"x","params":"{blob}"}}"#
            ));
        }
        greedy.send(r#"{"id":"last","pool":"echo","method":"echo","params":"still served"}"#);
        let mut refused = 0;
        let last = loop {
            let answer = greedy.receive_json();
            if answer["id"] == "last" {
                break answer;
            }
            assert_eq!(answer["error"]["code"], -32012, "{answer}");
            assert_eq!(answer["error"]["data"]["reason"], "overloaded");
            refused += 1;
        };
        assert_eq!(last["result"], "still served");
        assert!(
            (50..200).contains(&refused),
            "{refused} of 2 MB were refused, 1 MiB fits"
        );

        let answer = other.ask(r#"{"id":1,"pool":"echo","method":"echo","params":1}"#);
        assert_eq!(answer["result"], 1);
    });
}

#[test]
fn a_client_that_does_not_read_is_closed_and_holds_up_nobody_else() {
    alone(|| {
        let mut config: Value = serde_json::from_str(&zoo_config(1, &["echo"])).unwrap();
        config["limits"] = json!({"max_output_queue": 1 << 20});
        let mut bus = Program::start(&config.to_string(), UNIX_AND_TCP);

        let mut stuck = UnixStream::connect(&bus.unix_paths()[0]).unwrap();
        for id in 0..100 {
            let request =
                format!("{{\"id\":{id},\"method\":\"big\",\"params\":{{\"n\":100000}}}}\n");
            if stuck.write_all(request.as_bytes()).is_err() {
                break; // closed already
            }
        }
        bus.wait_for_log("disconnected: overflow");
        let answer = bus
            .unix_client()
            .ask(r#"{"id":1,"method":"echo","params":"served"}"#);
        assert_eq!(answer["result"], "served");
    });
}
