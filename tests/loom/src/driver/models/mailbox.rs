use std::future::poll_fn;
use std::task::{Context, Waker};

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

use crate::driver::command::Ended;
use crate::driver::mailbox::{Item, Mailbox, Post, mailbox};
use crate::driver::message::WorkerMessage;

fn message(len: usize) -> Arc<WorkerMessage> {
    let frame = vec![b'x'; len];
    Arc::new(WorkerMessage { frame })
}

/// Waits for the next item. Where the wake-up is lost the thread sleeps for ever, which loom reports.
fn next(mailbox: &mut Mailbox) -> Item {
    block_on(poll_fn(|cx| mailbox.poll(cx)))
}

/// The lengths of the messages that come, and the end.
fn collect(mailbox: &mut Mailbox) -> (Vec<usize>, Result<u8, Ended>) {
    let mut lengths = Vec::new();
    loop {
        match next(mailbox) {
            Item::Message(message) => lengths.push(message.frame.len()),
            Item::End(outcome) => return (lengths, outcome),
        }
    }
}

fn post_two(post: Post) {
    assert!(post.message(&message(1)));
    assert!(post.message(&message(2)));
    post.end(Ok(7));
}

pub(crate) fn a_task_that_waits_is_woken_for_each_item() {
    loom::model(|| {
        let (post, mut mailbox) = mailbox(100);
        let bus = thread::spawn(move || post_two(post));
        let (lengths, outcome) = collect(&mut mailbox);
        assert_eq!(lengths, [1, 2]);
        assert!(matches!(outcome, Ok(7)));
        bus.join().unwrap();
    });
}

pub(crate) fn the_last_waker_is_the_one_that_is_woken() {
    loom::model(|| {
        let (post, mut mailbox) = mailbox(100);
        let bus = thread::spawn(move || post.end(Ok(7)));
        // By another task, before it was handed on.
        let first = mailbox.poll(&mut Context::from_waker(Waker::noop()));
        if first.is_pending() {
            assert!(matches!(next(&mut mailbox), Item::End(Ok(7))));
        }
        bus.join().unwrap();
    });
}

pub(crate) fn a_post_that_is_dropped_ends_the_wait() {
    loom::model(|| {
        let (post, mut mailbox) = mailbox(100);
        let bus = thread::spawn(move || {
            post.message(&message(1));
            drop(post);
        });
        let (lengths, outcome) = collect(&mut mailbox);
        assert_eq!(lengths, [1]);
        assert!(matches!(outcome, Err(Ended::ShuttingDown)));
        bus.join().unwrap();
    });
}

pub(crate) fn what_is_posted_to_a_task_that_leaves_is_not_kept() {
    loom::model(|| {
        let (post, mailbox) = mailbox(100);
        let posted = message(1);
        let task = thread::spawn(move || {
            let mut mailbox = mailbox;
            let _ = mailbox.poll(&mut Context::from_waker(Waker::noop()));
        });
        assert!(post.message(&posted));
        task.join().unwrap();
        assert!(post.message(&posted));
        // The sender's half is still there, so what it kept would be, too.
        assert_eq!(Arc::strong_count(&posted), 1);
        post.end(Ok(7));
    });
}
