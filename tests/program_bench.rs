//! `stdio_bus bench`: its figures, its table, and what it says where there are none.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

use common::cli::{config_file, run, text};
use common::{
    BOUND, Program, TempDir, alone, children, program, signal, wait_until, zoo, zoo_config,
};
use serde_json::{Value, json};

const SHORT: &[&str] = &["--secs", "0.2", "--warm", "0.05"];

#[track_caller]
fn bench(args: &[&str]) -> Output {
    run(&[&["bench"], SHORT, args].concat())
}

/// What is on stdout, of a run that went well.
#[track_caller]
fn printed(args: &[&str]) -> String {
    let output = bench(args);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
    assert_eq!(errors, "", "{args:?}");
    text(&output.stdout)
}

/// The objects on stdout, of a run that went well.
#[track_caller]
fn rows(args: &[&str]) -> Vec<Value> {
    let lines = printed(&[&["--json"], args].concat());
    let rows = lines.lines().map(serde_json::from_str);
    rows.map(|row| row.expect("JSON")).collect()
}

#[track_caller]
fn row(args: &[&str]) -> Value {
    let mut rows = rows(args);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

/// What is on stderr, of a run that failed.
#[track_caller]
fn failed(args: &[&str]) -> String {
    let output = bench(args);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {errors}");
    errors
}

#[track_caller]
fn number(row: &Value, member: &str) -> f64 {
    let number = row[member].as_f64();
    number.unwrap_or_else(|| panic!("no number {member} in {row}"))
}

/// Whether everything was answered, with figures that can be true.
#[track_caller]
fn assert_complete(row: &Value) {
    assert_eq!(row["ok"], true, "{row}");
    assert_eq!(row["note"], "", "{row}");
    for none in ["err", "lost"] {
        assert_eq!(row[none], 0, "{row}");
    }
    let [n, secs] = ["n", "secs"].map(|member| number(row, member));
    assert!(n >= 1.0 && secs >= 0.2, "{row}");
    // It has one decimal.
    let rate = number(row, "rate");
    assert!((rate - n / secs).abs() < 0.06 + rate / 100.0, "{row}");
    let times = ["p50", "p99", "p999", "max"].map(|member| number(row, member));
    assert!(times[0] > 0.0 && times.is_sorted(), "{row}");
    assert!(times[3] < secs * 10.0 * 1e6, "{row}");
}

/// Whether what the process has used is there, too.
#[track_caller]
fn assert_usage(row: &Value) {
    assert!(number(row, "cpu_bus") > 0.0, "{row}");
    let [peak, now] = ["hwm_kb", "rss_kb"].map(|member| number(row, member));
    assert!(peak >= now && now > 1000.0, "{row}");
}

#[test]
fn each_client_has_an_object_with_all_figures_and_loses_nothing() {
    alone(|| {
        for client in ["async", "blocking", "unix", "tcp"] {
            for inflight in ["1", "64"] {
                let row = row(&["--client", client, "--inflight", inflight, "--size", "500"]);
                assert_complete(&row);
                assert_usage(&row);
                assert_eq!(row["client"], client, "{row}");
                let megabytes = number(&row, "rate") * 500.0 / 1e6;
                assert!((number(&row, "mbs") - megabytes).abs() < 0.01, "{row}");
            }
        }
    });
}

#[test]
fn the_options_of_a_driver_are_taken_together() {
    alone(|| {
        let zoo = zoo();
        let worker = ["--worker", zoo.to_str().expect("text"), "--workers", "2"];
        let load = ["--size", "300", "--inflight", "4", "--sessions", "50"];
        let more = ["--scenario", "lat", "--prime", "--big-limits"];
        for client in ["async", "blocking", "unix"] {
            let client = ["--client", client];
            let row = row(&[&client[..], &worker, &load, &more].concat());
            assert_complete(&row);
            assert_eq!(row["prime_n"], 50, "{row}");
        }
    });
}

#[test]
fn requests_that_are_held_stay_pending_beside_the_measured_ones() {
    alone(|| {
        for client in ["async", "blocking", "tcp"] {
            let row = row(&["--client", client, "--hold", "500", "--inflight", "8"]);
            assert_complete(&row);
        }
    });
}

#[test]
fn a_megabyte_comes_back_through_every_client() {
    alone(|| {
        for client in ["async", "blocking", "unix", "tcp"] {
            let args = ["--client", client, "--size", "1048576", "--secs", "1"];
            let lines = run(&[&["bench", "--json"], &args[..]].concat());
            let row: Value = serde_json::from_slice(&lines.stdout).expect("JSON");
            assert_complete(&row);
        }
    });
}

#[test]
fn a_load_that_keeps_its_thread_busy_does_not_stretch_the_time() {
    alone(|| {
        // Each answer takes long to read, and another one is always there.
        let args = ["--inflight", "4", "--size", "2000000", "--timeout", "30"];
        let lines = run(&[&["bench", "--json", "--secs", "2"], &args[..]].concat());
        let row: Value = serde_json::from_slice(&lines.stdout).expect("JSON");
        assert_complete(&row);
        // Unless the clock is looked at, it is about a minute.
        assert!(number(&row, "secs") < 10.0, "{row}");
    });
}

#[test]
fn an_idle_bus_and_a_life_have_figures_of_their_own() {
    alone(|| {
        let idle = row(&["--scenario", "idle"]);
        assert_eq!(idle["ok"], true, "{idle}");
        for member in ["idle_pct", "wakeups", "hwm_kb", "start_ms"] {
            number(&idle, member);
        }
        for client in ["async", "blocking", "unix", "tcp"] {
            let life = row(&[
                "--scenario",
                "lifecycle",
                "--workers",
                "4",
                "--client",
                client,
            ]);
            assert_eq!((&life["ok"], &life["workers"]), (&true.into(), &4.into()));
            let [start, ready] = ["start_ms", "ready_ms"].map(|member| number(&life, member));
            assert!(0.0 < start && start < ready, "{life}");
            assert!(number(&life, "stop_ms") > 0.0, "{life}");
        }
    });
}

#[test]
fn the_table_has_a_heading_and_a_row_for_each_client_and_number_in_flight() {
    alone(|| {
        let table = printed(&["--client", "async,unix", "--inflight", "1,16"]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 2 + 4, "{table}");
        assert!(
            lines[0].contains("1 echo worker, 200 bytes a request"),
            "{table}"
        );
        for unit in [
            "answers/s",
            "MB/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "CPU s/1M",
            "peak MB",
        ] {
            assert!(lines[1].contains(unit), "{table}");
        }
        let beginnings = lines[2..].iter().map(|line| {
            let cells: Vec<_> = line.split_whitespace().collect();
            assert_eq!((cells.len(), cells[9]), (10, "-"), "{table}");
            (cells[0], cells[1])
        });
        let wanted = [
            ("async", "1"),
            ("async", "16"),
            ("unix", "1"),
            ("unix", "16"),
        ];
        assert_eq!(beginnings.collect::<Vec<_>>(), wanted);
    });
}

#[test]
fn the_workers_of_a_configuration_are_asked_for_a_method_of_theirs() {
    alone(|| {
        let (_dir, config) = config_file(&zoo_config(2, &["echo"]));
        let asked = [
            "--config",
            &config,
            "--method",
            "any",
            "--params",
            r#"{"a": [1]}"#,
        ];
        for client in ["async", "tcp"] {
            assert_complete(&row(&[&asked[..], &["--client", client]].concat()));
        }
        let unknown = failed(&[&asked[..], &["--pool", "nobody"]].concat());
        assert!(unknown.contains("nobody"), "{unknown}");
    });
}

#[test]
fn a_bus_that_runs_already_is_measured_from_outside() {
    alone(|| {
        let listeners = ["--unix", "{dir}/bus.sock", "--tcp", "127.0.0.1:0"];
        let bus = Program::start(&zoo_config(1, &["echo"]), &listeners);
        let unix = bus.path("bus.sock");
        let places = [
            ["--unix", unix.to_str().expect("text")],
            ["--tcp", &bus.tcp_addresses()[0]],
        ];
        for place in &places {
            for more in [&[][..], &["--client", "async"], &["--client", "blocking"]] {
                let row = row(&[&place[..], more, &["--inflight", "8"]].concat());
                assert_complete(&row);
                // That is the other process's.
                assert_eq!(
                    (&row["cpu_bus"], &row["hwm_kb"]),
                    (&Value::Null, &Value::Null)
                );
            }
        }
    });
}

#[test]
fn what_can_not_be_measured_is_said() {
    alone(|| {
        let (_dir, broken) = config_file("{");
        let cases: &[(&[&str], &str)] = &[
            (&["--worker", "/no/such"], "cannot execute /no/such"),
            (&["--worker", "/bin/false"], "exited"),
            (&["--config", "/no/such"], "/no/such"),
            (&["--config", &broken], "line 1, column 2"),
            (&["--unix", "/no/such.sock"], "/no/such.sock"),
            (
                &["--unix", "/no/such.sock", "--client", "async"],
                "/no/such.sock",
            ),
            (&["--params", "{"], "not JSON"),
            (&["--unix", "/s", "--client", "tcp"], "--client tcp"),
        ];
        for (args, reason) in cases {
            let errors = failed(args);
            assert!(errors.contains(reason), "{args:?}: {errors}");
        }
        for client in ["async", "blocking", "unix", "tcp"] {
            // The echo worker's one method that is never answered.
            let silent = [
                "--method",
                "hold",
                "--timeout",
                "0.2",
                "--json",
                "--client",
                client,
            ];
            let output = bench(&silent);
            let errors = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{client}: {errors}");
            assert!(
                errors.contains("\"hold\": no answer within 200ms"),
                "{client}: {errors}"
            );
            let row: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(row["ok"], false, "{row}");
            assert!(
                errors.contains(row["note"].as_str().expect("text")),
                "{row}"
            );
        }
    });
}

/// A bench whose rows take so long each.
fn begin(args: &[&str]) -> Child {
    Command::new(program())
        .arg("bench")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// A configuration with a `sed` that does this with each line it reads.
fn sed(scripts: [&str; 2]) -> (TempDir, String) {
    let args = ["-u", "-e", scripts[0], "-e", scripts[1]];
    let pool = json!({"id": "p", "command": "sed", "args": args});
    config_file(&json!({"pools": [pool]}).to_string())
}

#[test]
fn answers_that_are_lost_are_counted_and_make_it_fail() {
    alone(|| {
        // Three answers, then none. An address that ends with the input would make it read on.
        let (_dir, config) = sed([r#"1,3s/"method"/"result"/"#, "4,99999999d"]);
        for client in ["async", "blocking", "unix", "tcp"] {
            let args = ["--config", &config, "--inflight", "2", "--timeout", "0.5"];
            let output = bench(&[&args[..], &["--json", "--client", client]].concat());
            let errors = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{client}: {errors}");
            let row: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(
                (&row["ok"], &row["err"]),
                (&false.into(), &0.into()),
                "{row}"
            );
            assert!(number(&row, "lost") >= 2.0, "{row}");
            let reason = "lost; the first: no answer within 500ms";
            assert!(errors.contains(reason), "{errors}");
        }
    });
}

#[test]
fn requests_that_fail_are_counted_and_make_it_fail() {
    alone(|| {
        // Five answers, then errors.
        let (_dir, config) = sed([
            r#"1,5s/"method"/"result"/"#,
            r#"6,99999999s/"method":"echo"/"error":{"code":-1,"message":"no"}/"#,
        ]);
        for client in ["async", "blocking", "unix"] {
            // More than a worker answers, so that each leaves some behind.
            let args = ["--config", &config, "--client", client, "--inflight", "64"];
            let output = bench(&args);
            let (table, errors) = (text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(1), "{table}{errors}");
            assert!(table.trim_end().ends_with(" failed"), "{table}");
            assert!(errors.contains("failed, 0 lost; the first: "), "{errors}");
        }
    });
}

#[test]
fn an_interrupt_ends_it_with_what_there_is() {
    alone(|| {
        let inflight = (1..=100)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(",");
        let mut child = begin(&["--secs", "0.5", "--inflight", &inflight]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        for _ in 0..3 {
            lines.next().expect("a row").expect("text");
        }
        signal(child.id(), "INT");
        let rest = lines.count();
        let status = child.wait().expect("it ends");
        let mut errors = String::new();
        child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut errors)
            .expect("text");
        assert_eq!(status.code(), Some(130), "{errors}");
        assert_eq!(errors, "stdio_bus: interrupted\n");
        assert!(rest < 100 - 1, "{rest} rows after the interrupt");
    });
}

#[test]
fn an_interrupt_does_not_wait_for_answers() {
    alone(|| {
        for client in ["async", "blocking", "unix"] {
            let child = begin(&["--method", "hold", "--timeout", "600", "--client", client]);
            wait_until("the worker", BOUND, || !children(child.id()).is_empty());
            signal(child.id(), "INT");
            let output = child.wait_with_output().expect("it ends");
            assert_eq!(output.status.code(), Some(130), "{output:?}");
            assert_eq!(text(&output.stdout), "");
            assert_eq!(text(&output.stderr), "stdio_bus: interrupted\n");
        }
    });
}
