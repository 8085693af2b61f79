/* session.c - the sessions of the router: by name, by last use, by worker and by owner. */
#include "router.h"

/* No pool has such a number, so no session that has a name stands there. */
#define OWN_SESSION 0x80000000u

static uint32_t name_hash(const sb_router *router, uint32_t pool, sb_span name)
{
    return sb_hash(router->seed, (uint64_t)pool << 8 | 4, name);
}

/* ---- lists by last use ------------------------------------------------------------------- */

/* Whether it may be ended any time: only such sessions stand in the list. */
static bool is_idle(const sb_session *session)
{
    return session->requests == SB_NONE && session->ending == SB_NONE && !session->created && !session->own;
}

static void unlink_idle(sb_router *router, uint32_t entry)
{
    sb_session_list *list = &router->idle;
    sb_session *session = sb_router_session_at(router, entry);
    if (session->newer != SB_NONE) {
        sb_router_session_at(router, session->newer)->older = session->older;
    } else {
        list->newest = session->older;
    }
    if (session->older != SB_NONE) {
        sb_router_session_at(router, session->older)->newer = session->newer;
    } else {
        list->oldest = session->newer;
    }
}

/* Puts a session, which is used just now, at the newest end. */
static void link_idle(sb_router *router, uint32_t entry)
{
    sb_session_list *list = &router->idle;
    sb_session *session = sb_router_session_at(router, entry);
    session->used_at = router->now;
    session->newer = SB_NONE;
    session->older = list->newest;
    if (list->newest != SB_NONE) {
        sb_router_session_at(router, list->newest)->newer = entry;
    } else {
        list->oldest = entry;
    }
    list->newest = entry;
}

/* What decides it has changed: it was idle before, or not. */
static void refile(sb_router *router, uint32_t entry, bool before)
{
    bool now = is_idle(sb_router_session_at(router, entry));
    if (before && !now) unlink_idle(router, entry);
    if (now && !before) link_idle(router, entry);
}

/* ---- its requests ---------------------------------------------------------------------------- */

void sb_session_attach(sb_router *router, uint32_t session, uint32_t entry)
{
    sb_request *request = sb_router_request(router, entry);
    bool before;
    request->session = session;
    request->prev_of_session = request->next_of_session = SB_NONE;
    if (session == SB_NONE) return;
    before = is_idle(sb_router_session_at(router, session));
    request->next_of_session = sb_router_session_at(router, session)->requests;
    if (request->next_of_session != SB_NONE) {
        sb_router_request(router, request->next_of_session)->prev_of_session = entry;
    }
    sb_router_session_at(router, session)->requests = entry;
    refile(router, session, before);
}

void sb_session_detach(sb_router *router, uint32_t entry)
{
    sb_request *request = sb_router_request(router, entry);
    uint32_t session = request->session;
    bool before;
    if (session == SB_NONE) return;
    before = is_idle(sb_router_session_at(router, session));
    if (request->next_of_session != SB_NONE) {
        sb_router_request(router, request->next_of_session)->prev_of_session = request->prev_of_session;
    }
    if (request->prev_of_session != SB_NONE) {
        sb_router_request(router, request->prev_of_session)->next_of_session = request->next_of_session;
    } else {
        sb_router_session_at(router, session)->requests = request->next_of_session;
    }
    request->session = SB_NONE;
    if (sb_router_session_at(router, session)->turn == entry) sb_router_session_at(router, session)->turn = SB_NONE;
    refile(router, session, before);
}

void sb_session_hold(sb_router *router, uint32_t session, uint32_t tomb)
{
    bool before = is_idle(sb_router_session_at(router, session));
    uint32_t earlier = sb_router_session_at(router, session)->ending;
    /* Of several it is the last one that counts. */
    if (earlier != SB_NONE) sb_router_request(router, earlier)->session = SB_NONE;
    sb_router_session_at(router, session)->ending = tomb;
    if (tomb != SB_NONE) sb_router_request(router, tomb)->session = session;
    refile(router, session, before);
}

/* ---- worker and owner -------------------------------------------------------------------------- */

void sb_session_bind(sb_router *router, uint32_t entry, sb_peer *worker)
{
    sb_session *session = sb_router_session_at(router, entry);
    if (session->worker == worker) return;
    if (session->worker != NULL) {
        if (session->next_of_worker != SB_NONE) {
            sb_router_session_at(router, session->next_of_worker)->prev_of_worker = session->prev_of_worker;
        }
        if (session->prev_of_worker != SB_NONE) {
            sb_router_session_at(router, session->prev_of_worker)->next_of_worker = session->next_of_worker;
        } else {
            session->worker->sessions = session->next_of_worker;
        }
        session->worker->session_count--;
        if (session->created) session->worker->created--;
    }
    session->worker = worker;
    if (worker == NULL) return;
    session->prev_of_worker = SB_NONE;
    session->next_of_worker = worker->sessions;
    if (worker->sessions != SB_NONE) sb_router_session_at(router, worker->sessions)->prev_of_worker = entry;
    worker->sessions = entry;
    worker->session_count++;
    if (session->created) worker->created++;
}

void sb_session_give(sb_router *router, uint32_t entry, sb_peer *owner)
{
    sb_session *session = sb_router_session_at(router, entry);
    if (session->owner == owner) return;
    if (session->owner != NULL) {
        if (session->next_of_owner != SB_NONE) {
            sb_router_session_at(router, session->next_of_owner)->prev_of_owner = session->prev_of_owner;
        }
        if (session->prev_of_owner != SB_NONE) {
            sb_router_session_at(router, session->prev_of_owner)->next_of_owner = session->next_of_owner;
        } else {
            session->owner->owned = session->next_of_owner;
        }
    }
    session->owner = owner;
    if (owner == NULL) return;
    session->prev_of_owner = SB_NONE;
    session->next_of_owner = owner->owned;
    if (owner->owned != SB_NONE) sb_router_session_at(router, owner->owned)->prev_of_owner = entry;
    owner->owned = entry;
}

void sb_session_end(sb_router *router, uint32_t entry)
{
    sb_session *session = sb_router_session_at(router, entry);
    while (session->requests != SB_NONE) sb_session_detach(router, session->requests);
    if (session->ending != SB_NONE) sb_session_hold(router, entry, SB_NONE);
    sb_session_bind(router, entry, NULL);
    sb_session_give(router, entry, NULL);
    if (is_idle(session)) unlink_idle(router, entry);
    sb_index_remove(&router->by_name, name_hash(router, session->pool, sb_text_span(&session->name)), entry);
    sb_text_free(&session->name);
    session->pool = SB_NONE;
    sb_slab_give(&router->sessions, entry);
}

void sb_router_end_idle(sb_router *router, uint32_t before)
{
    while (router->idle.oldest != SB_NONE && sb_router_session_at(router, router->idle.oldest)->used_at < before) {
        sb_session_end(router, router->idle.oldest);
    }
}

void sb_router_end_sessions(sb_router *router, uint32_t pool)
{
    for (uint32_t entry = 0; entry < router->sessions.fresh; entry++) {
        if ((sb_router_session_at(router, entry)->pool & ~OWN_SESSION) == pool) sb_session_end(router, entry);
    }
}

/* Room for one more session, if need be that of the one that was used longest ago and waits for nothing. */
static bool make_room(sb_router *router)
{
    if (router->sessions.used < router->max_sessions) return true;
    if (router->idle.oldest == SB_NONE) return false;
    sb_session_end(router, router->idle.oldest);
    return true;
}

uint32_t sb_router_session(sb_router *router, uint32_t pool, sb_span name, bool create)
{
    uint32_t hash = name_hash(router, pool, name), at = hash, entry;
    sb_session *session;
    while ((entry = sb_index_next(&router->by_name, hash, &at)) != SB_NONE) {
        session = sb_router_session_at(router, entry);
        if (session->pool != pool || !sb_span_eq(sb_text_span(&session->name), name)) continue;
        if (router->idle.newest != entry && is_idle(session)) {
            unlink_idle(router, entry);
            link_idle(router, entry);
        }
        session->used_at = router->now;
        return entry;
    }
    if (!create) return SB_NONE;
    if (!make_room(router) || !sb_index_reserve(&router->by_name)) return SB_NONE;
    entry = sb_slab_take(&router->sessions);
    if (entry == SB_NONE) return SB_NONE;
    session = sb_router_session_at(router, entry);
    session->pool = SB_NONE;
    if (!sb_text_set(&session->name, name)) {
        sb_slab_give(&router->sessions, entry);
        return SB_NONE;
    }
    session->pool = pool;
    session->owner = NULL;
    session->requests = session->turn = session->ending = SB_NONE;
    session->created = session->own = false;
    session->worker = NULL;
    link_idle(router, entry);
    sb_index_insert(&router->by_name, hash, entry);
    return entry;
}

void sb_session_create(sb_router *router, uint32_t session, sb_peer *worker, sb_peer *client)
{
    bool before = is_idle(sb_router_session_at(router, session));
    sb_session_bind(router, session, NULL);
    sb_router_session_at(router, session)->created = true;
    refile(router, session, before);
    sb_session_bind(router, session, worker);
    sb_session_give(router, session, client);
}

uint32_t sb_router_own_session(sb_router *router, uint32_t pool, sb_peer *client)
{
    sb_span name = {(const char *)&client->key, sizeof client->key};
    uint32_t entry = sb_router_session(router, pool | OWN_SESSION, name, true);
    bool before;
    if (entry == SB_NONE) return SB_NONE;
    before = is_idle(sb_router_session_at(router, entry));
    sb_router_session_at(router, entry)->own = true;
    refile(router, entry, before);
    sb_session_give(router, entry, client);
    return entry;
}

uint32_t sb_session_waiting(const sb_router *router, uint32_t session)
{
    uint32_t entry = sb_router_session_at(router, session)->turn;
    if (entry != SB_NONE) return entry;
    entry = sb_router_session_at(router, session)->requests; /* newest first */
    while (entry != SB_NONE && sb_router_request(router, entry)->up) {
        entry = sb_router_request(router, entry)->next_of_session;
    }
    return entry;
}
