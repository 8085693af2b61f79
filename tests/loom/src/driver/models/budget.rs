use loom::thread;

use crate::driver::budget::Budget;

pub(crate) fn no_more_is_given_than_there_is() {
    loom::model(|| {
        let budget = Budget::new(10);
        let threads = [6, 6].map(|bytes| {
            let budget = budget.clone();
            thread::spawn(move || budget.enter(bytes))
        });
        let places = threads.map(|thread| thread.join().unwrap());
        let granted = places.iter().filter(|place| place.is_granted()).count();
        assert_eq!((granted, budget.used(), budget.waiting()), (1, 6, 1));
    });
}

pub(crate) fn who_leaves_the_line_leaves_nothing_behind() {
    loom::model(|| {
        let budget = Budget::new(10);
        let threads = [8, 8].map(|bytes| {
            let budget = budget.clone();
            thread::spawn(move || drop(budget.enter(bytes)))
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((budget.used(), budget.waiting()), (0, 0));
        assert!(budget.try_enter(10).is_some());
    });
}
