//! Models of how threads meet in the bus's own synchronisation, tried in every order that loom finds.
//!
//! `driver` holds the files of the library as they are; what they use of it stands in `driver` and
//! beside it, as little as will do, with loom's types where the library has those of the standard
//! library. A program and not a test, so that the unit tests inside those files stay out.
//!
//! `cargo run --release --manifest-path tests/loom/Cargo.toml [NAME]`

mod backend;
mod driver;
mod native;
mod sys;

use driver::models::{budget, mailbox, wake};

macro_rules! models {
    ($($model:path),* $(,)?) => { [$((stringify!($model), $model as fn())),*] };
}

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let models = models![
        wake::a_queued_command_is_never_left_with_a_thread_that_sleeps,
        wake::commands_of_two_producers_are_both_seen,
        wake::nobody_rings_a_bus_that_is_destroyed,
        mailbox::a_task_that_waits_is_woken_for_each_item,
        mailbox::the_last_waker_is_the_one_that_is_woken,
        mailbox::a_post_that_is_dropped_ends_the_wait,
        mailbox::what_is_posted_to_a_task_that_leaves_is_not_kept,
        budget::no_more_is_given_than_there_is,
        budget::who_leaves_the_line_leaves_nothing_behind,
    ];
    let chosen = models.iter().filter(|(name, _)| name.contains(&wanted));
    let mut count = 0;
    for (name, model) in chosen {
        // Before it runs: a model that fails ends the program.
        println!("{name}");
        model();
        count += 1;
    }
    assert!(count > 0, "no model is called {wanted:?}");
    println!("{count} models passed");
}
