#include "timer.h"

void sb_timers_free(sb_timers *timers)
{
    sb_free(timers->heap);
    memset(timers, 0, sizeof *timers);
}

bool sb_timer_register(sb_timers *timers, sb_timer *timer, sb_timer_fn fire)
{
    if (timers->known == timers->cap) {
        size_t cap = timers->cap ? timers->cap * 2 : 16;
        sb_timer **heap = sb_realloc(timers->heap, cap * sizeof *heap);
        if (heap == NULL) return false;
        timers->heap = heap;
        timers->cap = cap;
    }
    timers->known++;
    timer->place = 0;
    timer->due = 0;
    timer->fire = fire;
    return true;
}

static void place(sb_timers *timers, sb_timer *timer, size_t at)
{
    timers->heap[at] = timer;
    timer->place = at + 1;
}

static void sift_up(sb_timers *timers, sb_timer *timer, size_t at)
{
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (timers->heap[parent]->due <= timer->due) break;
        place(timers, timers->heap[parent], at);
        at = parent;
    }
    place(timers, timer, at);
}

static void sift_down(sb_timers *timers, sb_timer *timer, size_t at)
{
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= timers->set) break;
        if (child + 1 < timers->set && timers->heap[child + 1]->due < timers->heap[child]->due) child++;
        if (timers->heap[child]->due >= timer->due) break;
        place(timers, timers->heap[child], at);
        at = child;
    }
    place(timers, timer, at);
}

void sb_timer_cancel(sb_timers *timers, sb_timer *timer)
{
    size_t at;
    sb_timer *last;
    if (timer->place == 0) return;
    at = timer->place - 1;
    timer->place = 0;
    last = timers->heap[--timers->set];
    if (last == timer) return;
    sift_up(timers, last, at);
    sift_down(timers, last, last->place - 1);
}

void sb_timer_unregister(sb_timers *timers, sb_timer *timer)
{
    if (timer->fire == NULL) return;
    sb_timer_cancel(timers, timer);
    timer->fire = NULL;
    timers->known--;
}

void sb_timer_set(sb_timers *timers, sb_timer *timer, uint64_t due)
{
    sb_timer_cancel(timers, timer);
    timer->due = due;
    sift_up(timers, timer, timers->set++);
}

int sb_timers_run(sb_timers *timers, uint64_t now)
{
    int fired = 0;
    /* Each timer fires at most once a call: one set anew for `now` must not keep the loop here. */
    size_t budget = timers->set;
    while (budget-- > 0 && timers->set > 0 && timers->heap[0]->due <= now) {
        sb_timer *timer = timers->heap[0];
        sb_timer_cancel(timers, timer);
        timer->fire(timer);
        fired++;
    }
    return fired;
}
