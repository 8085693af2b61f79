#include "router.h"

#include "envelope.h"

typedef struct {
    uint32_t request;
    sb_text token;
} sb_note;

void sb_router_init(sb_router *router, uint64_t seed, uint32_t max_sessions)
{
    memset(router, 0, sizeof *router);
    router->seed = seed;
    router->max_sessions = max_sessions;
    router->max_tombs = 65536;
    router->idle.newest = router->idle.oldest = SB_NONE;
    sb_slab_init(&router->links, sizeof(sb_link));
    sb_slab_init(&router->requests, sizeof(sb_request));
    sb_slab_init(&router->sessions, sizeof(sb_session));
    sb_slab_init(&router->notes, sizeof(sb_note));
}

/* Entries in use own memory only through their texts; every slab entry was zeroed when it was made. */
static void free_texts(sb_router *router)
{
    for (uint32_t at = 0; router->by_wire.slots != NULL && at <= router->by_wire.mask; at++) {
        uint32_t entry = router->by_wire.slots[at].entry;
        if (entry != SB_NONE) sb_text_free(&sb_router_request(router, entry)->id);
    }
    for (uint32_t at = 0; router->by_name.slots != NULL && at <= router->by_name.mask; at++) {
        uint32_t entry = router->by_name.slots[at].entry;
        if (entry != SB_NONE) sb_text_free(&sb_router_session_at(router, entry)->name);
    }
    for (uint32_t at = 0; router->by_note.slots != NULL && at <= router->by_note.mask; at++) {
        uint32_t entry = router->by_note.slots[at].entry;
        if (entry != SB_NONE) sb_text_free(&((sb_note *)sb_slab_at(&router->notes, entry))->token);
    }
}

void sb_router_free(sb_router *router)
{
    free_texts(router);
    sb_slab_free(&router->links);
    sb_slab_free(&router->requests);
    sb_slab_free(&router->sessions);
    sb_slab_free(&router->notes);
    sb_index_free(&router->by_pair);
    sb_index_free(&router->by_wire);
    sb_index_free(&router->by_origin);
    sb_index_free(&router->by_name);
    sb_index_free(&router->by_note);
}

void sb_peer_init(sb_router *router, sb_peer *peer, bool worker)
{
    memset(peer, 0, sizeof *peer);
    peer->key = ++router->last_key;
    peer->worker = worker;
    peer->links = peer->last_link = peer->busy_links = peer->next_link = peer->sessions = peer->owned = SB_NONE;
    peer->tombs.head = peer->tombs.tail = SB_NONE;
}

/* ---- lists of requests --------------------------------------------------- */

static void list_append(sb_router *router, sb_request_list *list, uint32_t entry)
{
    sb_request *request = sb_router_request(router, entry);
    request->next = SB_NONE;
    request->prev = list->tail;
    if (list->tail != SB_NONE) {
        sb_router_request(router, list->tail)->next = entry;
    } else {
        list->head = entry;
    }
    list->tail = entry;
    list->count++;
}

static void list_remove(sb_router *router, sb_request_list *list, uint32_t entry)
{
    sb_request *request = sb_router_request(router, entry);
    if (request->prev != SB_NONE) {
        sb_router_request(router, request->prev)->next = request->next;
    } else {
        list->head = request->next;
    }
    if (request->next != SB_NONE) {
        sb_router_request(router, request->next)->prev = request->prev;
    } else {
        list->tail = request->prev;
    }
    list->count--;
}

/* ---- links ------------------------------------------------------------------ */

static uint32_t pair_hash(const sb_router *router, uint32_t client_key, uint32_t worker_key)
{
    uint32_t keys[2] = {client_key, worker_key};
    sb_span span = {(const char *)keys, sizeof keys};
    return sb_hash(router->seed, 1, span);
}

static void link_insert(sb_router *router, uint32_t entry)
{
    sb_link *link = sb_router_link_at(router, entry);
    link->prev_of_client = link->prev_of_worker = SB_NONE;
    link->next_of_client = link->client->links;
    link->next_of_worker = link->worker->links;
    if (link->next_of_client != SB_NONE) sb_router_link_at(router, link->next_of_client)->prev_of_client = entry;
    if (link->next_of_worker != SB_NONE) sb_router_link_at(router, link->next_of_worker)->prev_of_worker = entry;
    link->client->links = entry;
    link->worker->links = entry;
}

uint32_t sb_router_link(sb_router *router, sb_peer *client, sb_peer *worker)
{
    uint32_t hash, at, entry = client->last_link;
    sb_link *link;
    if (entry != SB_NONE && sb_router_link_at(router, entry)->worker == worker) return entry;
    hash = at = pair_hash(router, client->key, worker->key);
    while ((entry = sb_index_next(&router->by_pair, hash, &at)) != SB_NONE) {
        link = sb_router_link_at(router, entry);
        if (link->client == client && link->worker == worker) {
            client->last_link = entry;
            return entry;
        }
    }
    if (!sb_index_reserve(&router->by_pair)) return SB_NONE;
    entry = sb_slab_take(&router->links);
    if (entry == SB_NONE) return SB_NONE;
    link = sb_router_link_at(router, entry);
    memset(link, 0, sizeof *link);
    link->client = client;
    link->worker = worker;
    link->client_key = client->key;
    link->next_busy = link->prev_busy = SB_NONE;
    for (int i = SB_DOWN; i <= SB_UP; i++) link->requests[i].head = link->requests[i].tail = SB_NONE;
    link_insert(router, entry);
    sb_index_insert(&router->by_pair, hash, entry);
    client->last_link = entry;
    return entry;
}

static void link_busy(sb_router *router, uint32_t entry, bool busy)
{
    sb_link *link = sb_router_link_at(router, entry);
    if (busy) {
        link->prev_busy = SB_NONE;
        link->next_busy = link->worker->busy_links;
        if (link->next_busy != SB_NONE) sb_router_link_at(router, link->next_busy)->prev_busy = entry;
        link->worker->busy_links = entry;
    } else {
        if (link->next_busy != SB_NONE) sb_router_link_at(router, link->next_busy)->prev_busy = link->prev_busy;
        if (link->prev_busy != SB_NONE) {
            sb_router_link_at(router, link->prev_busy)->next_busy = link->next_busy;
        } else {
            link->worker->busy_links = link->next_busy;
        }
    }
}

static void link_drop(sb_router *router, uint32_t entry)
{
    sb_link *link = sb_router_link_at(router, entry);
    if (link->next_of_client != SB_NONE) {
        sb_router_link_at(router, link->next_of_client)->prev_of_client = link->prev_of_client;
    }
    if (link->prev_of_client != SB_NONE) {
        sb_router_link_at(router, link->prev_of_client)->next_of_client = link->next_of_client;
    } else {
        link->client->links = link->next_of_client;
    }
    if (link->next_of_worker != SB_NONE) {
        sb_router_link_at(router, link->next_of_worker)->prev_of_worker = link->prev_of_worker;
    }
    if (link->prev_of_worker != SB_NONE) {
        sb_router_link_at(router, link->prev_of_worker)->next_of_worker = link->next_of_worker;
    } else {
        link->worker->links = link->next_of_worker;
    }
    if (link->client->last_link == entry) link->client->last_link = SB_NONE;
    if (link->worker->next_link == entry) link->worker->next_link = link->next_of_worker;
    link->client_key = 0;
    sb_index_remove(&router->by_pair, pair_hash(router, link->client->key, link->worker->key), entry);
    sb_slab_give(&router->links, entry);
}

/* ---- ids ---------------------------------------------------------------------- */

static uint32_t wire_hash(const sb_router *router, const sb_peer *holder, sb_span wire)
{
    return sb_hash(router->seed, (uint64_t)holder->key << 8 | 2, wire);
}

static uint32_t origin_hash(const sb_router *router, const sb_peer *asker, sb_span id)
{
    return sb_hash(router->seed, (uint64_t)asker->key << 8 | 3, id);
}

static size_t write_number(uint64_t number, char wire[SB_WIRE_MAX])
{
    char digits[SB_WIRE_MAX];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    for (size_t i = 0; i < count; i++) wire[i] = digits[count - 1 - i];
    wire[count] = '\0';
    return count;
}

/* What stands on the wire for a request. */
static sb_span wire_of(const sb_request *request, char scratch[SB_WIRE_MAX])
{
    sb_span wire = {scratch, 0};
    if (request->issued == 0) return sb_text_span(&request->id);
    wire.len = write_number(request->issued, scratch);
    return wire;
}

static uint32_t find_wire(const sb_router *router, const sb_peer *holder, sb_span wire, uint32_t hash)
{
    uint32_t at = hash, entry;
    while ((entry = sb_index_next(&router->by_wire, hash, &at)) != SB_NONE) {
        const sb_request *request = sb_router_request(router, entry);
        char scratch[SB_WIRE_MAX];
        if (request->holder == holder && sb_span_eq(wire_of(request, scratch), wire)) return entry;
    }
    return SB_NONE;
}

sb_span sb_router_wire(const sb_router *router, uint32_t request, char wire[SB_WIRE_MAX])
{
    return wire_of(sb_router_request(router, request), wire);
}

/* A number that is in use nowhere towards `holder`, and its hash. */
static sb_span issue_number(sb_router *router, sb_peer *holder, char wire[SB_WIRE_MAX], uint32_t *hash)
{
    sb_span token = {wire, 0};
    /* Numbers that a client has chosen may be among those the counter reaches. */
    do {
        token.len = write_number(++holder->issued, wire);
        *hash = wire_hash(router, holder, token);
    } while (find_wire(router, holder, token, *hash) != SB_NONE);
    return token;
}

sb_span sb_router_issue(sb_router *router, sb_peer *holder, char wire[SB_WIRE_MAX])
{
    uint32_t hash;
    return issue_number(router, holder, wire, &hash);
}

uint64_t sb_router_number(sb_span wire)
{
    uint64_t number = 0;
    /* 19 digits fit into 64 bits. */
    if (wire.len == 0 || wire.len > 19 || wire.ptr[0] == '0') return 0;
    for (size_t i = 0; i < wire.len; i++) {
        if (wire.ptr[i] < '0' || wire.ptr[i] > '9') return 0;
        number = number * 10 + (uint64_t)(wire.ptr[i] - '0');
    }
    return number;
}

uint32_t sb_router_answered(const sb_router *router, const sb_peer *holder, sb_span wire)
{
    return find_wire(router, holder, wire, wire_hash(router, holder, wire));
}

uint32_t sb_router_asked(const sb_router *router, const sb_peer *asker, sb_span id)
{
    uint32_t hash = origin_hash(router, asker, id), at = hash, entry;
    while ((entry = sb_index_next(&router->by_origin, hash, &at)) != SB_NONE) {
        const sb_request *request = sb_router_request(router, entry);
        if (sb_router_asker(router, request) == asker && sb_span_eq(sb_text_span(&request->id), id)) return entry;
    }
    /* What a client's own id stands for on the wire: it may be with any of its workers. */
    for (uint32_t l = asker->worker ? SB_NONE : asker->links; l != SB_NONE; l = sb_router_link_at(router, l)->next_of_client) {
        entry = sb_router_answered(router, sb_router_link_at(router, l)->worker, id);
        if (entry == SB_NONE) continue;
        if (sb_router_request(router, entry)->link == l && sb_router_request(router, entry)->issued == 0) return entry;
    }
    return SB_NONE;
}

/* ---- notes ----------------------------------------------------------------------- */

static uint32_t note_hash(const sb_router *router, uint32_t request)
{
    sb_span span = {(const char *)&request, sizeof request};
    return sb_hash(router->seed, 5, span);
}

/* The number of a request's note; it must have one. */
static uint32_t note_of(const sb_router *router, uint32_t request)
{
    uint32_t hash = note_hash(router, request), at = hash, entry;
    do entry = sb_index_next(&router->by_note, hash, &at);
    while (((const sb_note *)sb_slab_at(&router->notes, entry))->request != request);
    return entry;
}

bool sb_router_note(sb_router *router, uint32_t request, sb_span token)
{
    sb_note *note;
    uint32_t entry;
    if (!sb_index_reserve(&router->by_note)) return false;
    entry = sb_slab_take(&router->notes);
    if (entry == SB_NONE) return false;
    note = sb_slab_at(&router->notes, entry);
    if (!sb_text_set(&note->token, token)) {
        sb_slab_give(&router->notes, entry);
        return false;
    }
    note->request = request;
    sb_index_insert(&router->by_note, note_hash(router, request), entry);
    sb_router_request(router, request)->noted = 1;
    return true;
}

sb_span sb_router_noted(const sb_router *router, uint32_t request)
{
    static const sb_span none = {NULL, 0};
    if (!sb_router_request(router, request)->noted) return none;
    return sb_text_span(&((const sb_note *)sb_slab_at(&router->notes, note_of(router, request)))->token);
}

static void drop_note(sb_router *router, uint32_t request)
{
    uint32_t entry;
    if (!sb_router_request(router, request)->noted) return;
    sb_router_request(router, request)->noted = 0;
    entry = note_of(router, request);
    sb_index_remove(&router->by_note, note_hash(router, request), entry);
    sb_text_free(&((sb_note *)sb_slab_at(&router->notes, entry))->token);
    sb_slab_give(&router->notes, entry);
}

/* ---- requests -------------------------------------------------------------------- */

sb_peer *sb_router_asker(const sb_router *router, const sb_request *request)
{
    const sb_link *link;
    if (request->link == SB_NONE) return NULL;
    link = sb_router_link_at(router, request->link);
    return request->up ? link->worker : link->client;
}

static void load_changed(sb_peer *holder)
{
    if (holder->worker) sb_balance_update(&holder->node, sb_peer_load(holder));
}

/* Puts a live request on its link's list and into the counts. */
static void attach(sb_router *router, uint32_t entry, uint32_t link_entry, sb_direction direction)
{
    sb_link *link = sb_router_link_at(router, link_entry);
    sb_peer *asker = direction == SB_UP ? link->worker : link->client;
    if (direction == SB_DOWN && link->requests[SB_DOWN].count == 0) link_busy(router, link_entry, true);
    list_append(router, &link->requests[direction], entry);
    asker->asked++;
    sb_router_request(router, entry)->holder->pending++;
    if (direction == SB_DOWN) router->pending++;
    load_changed(sb_router_request(router, entry)->holder);
}

/* Whether a live request is found by who asked it. Those of clients under their own ids are not: there are many. */
static bool has_origin(const sb_request *request)
{
    return request->issued != 0 || request->up;
}

static bool opens_session(uint32_t meaning)
{
    return meaning == SB_MEANS_NEW_SESSION || meaning == SB_MEANS_LOAD_SESSION;
}

void sb_router_mean(sb_router *router, uint32_t entry, sb_meaning meaning)
{
    sb_request *request = sb_router_request(router, entry);
    request->meaning = (unsigned)meaning & 15u;
    if (opens_session(meaning)) request->holder->opening++;
    if (meaning == SB_MEANS_PROMPT && request->session != SB_NONE) {
        sb_router_session_at(router, request->session)->turn = entry;
    }
}

static void detach(sb_router *router, uint32_t entry)
{
    sb_request *request = sb_router_request(router, entry);
    sb_link *link = sb_router_link_at(router, request->link);
    sb_direction direction = request->up ? SB_UP : SB_DOWN;
    if (opens_session(request->meaning)) request->holder->opening--;
    sb_session_detach(router, entry);
    list_remove(router, &link->requests[direction], entry);
    if (direction == SB_DOWN && link->requests[SB_DOWN].count == 0) link_busy(router, request->link, false);
    sb_router_asker(router, request)->asked--;
    request->holder->pending--;
    if (direction == SB_DOWN) router->pending--;
    if (has_origin(request)) sb_index_remove(&router->by_origin, request->origin_hash, entry);
    request->link = SB_NONE;
}

sb_span sb_router_ask(sb_router *router, uint32_t link_entry, sb_direction direction, sb_span id, bool issue,
                      uint32_t session, char wire[SB_WIRE_MAX], uint32_t *out)
{
    sb_link *link = sb_router_link_at(router, link_entry);
    sb_peer *holder = direction == SB_UP ? link->client : link->worker;
    sb_peer *asker = direction == SB_UP ? link->worker : link->client;
    sb_span token = {NULL, 0};
    sb_request *request;
    uint32_t entry, hash = 0;
    _Static_assert(SB_MEANINGS <= 16, "a meaning fits into its bits");
    if (!sb_index_reserve(&router->by_wire) || !sb_index_reserve(&router->by_origin)) return token;
    entry = sb_slab_take(&router->requests);
    if (entry == SB_NONE) return token;
    request = sb_router_request(router, entry);
    if (!sb_text_set(&request->id, id)) {
        sb_slab_give(&router->requests, entry);
        return token;
    }
    request->serial++;
    request->up = direction == SB_UP;
    request->given_up = 0;
    request->noted = 0;
    request->meaning = SB_MEANS_NOTHING;
    request->holder = holder;
    request->link = link_entry;
    request->issued = 0;
    issue = issue || !sb_id_is_stable(id);
    if (!issue) {
        hash = wire_hash(router, holder, id);
        issue = find_wire(router, holder, id, hash) != SB_NONE;
    }
    if (issue) {
        token = issue_number(router, holder, wire, &hash);
        request->issued = holder->issued;
    } else {
        token = sb_text_span(&request->id);
    }
    if (has_origin(request)) {
        request->origin_hash = origin_hash(router, asker, id);
        sb_index_insert(&router->by_origin, request->origin_hash, entry);
    }
    request->wire_hash = hash;
    sb_index_insert(&router->by_wire, hash, entry);
    sb_session_attach(router, session, entry);
    attach(router, entry, link_entry, direction);
    if (out != NULL) *out = entry;
    return token;
}

/* The link that a tombstone hung on, if it is still there. */
static sb_link *owner_of(const sb_router *router, const sb_request *request)
{
    sb_link *link = sb_router_link_at(router, request->owner);
    return link->client_key == request->owner_key && link->worker == request->holder ? link : NULL;
}

void sb_router_end_take(sb_router *router, uint32_t entry, sb_text *id)
{
    sb_request *request = sb_router_request(router, entry);
    sb_peer *holder = request->holder;
    if (request->given_up) {
        sb_link *link = owner_of(router, request);
        if (link != NULL) link->given_up--;
        list_remove(router, &holder->tombs, entry);
        if (request->session != SB_NONE) sb_session_hold(router, request->session, SB_NONE);
    } else {
        drop_note(router, entry);
        detach(router, entry);
    }
    sb_index_remove(&router->by_wire, request->wire_hash, entry);
    *id = request->id;
    request->serial++;
    sb_slab_give(&router->requests, entry);
    load_changed(holder);
}

void sb_router_end(sb_router *router, uint32_t entry)
{
    sb_text id;
    sb_router_end_take(router, entry, &id);
    sb_text_free(&id);
}

void sb_router_give_up(sb_router *router, uint32_t entry)
{
    sb_request *request = sb_router_request(router, entry);
    sb_peer *holder = request->holder;
    uint32_t link = request->link;
    if (request->given_up) return;
    if (holder->queue) {
        sb_router_end(router, entry);
        return;
    }
    drop_note(router, entry);
    detach(router, entry);
    request->given_up = 1;
    request->given_up_as = ++holder->tombs_made;
    request->owner = link;
    request->owner_key = sb_router_link_at(router, link)->client_key;
    if (owner_of(router, request) != NULL) sb_router_link_at(router, link)->given_up++;
    list_append(router, &holder->tombs, entry);
    /* Beyond the cap the oldest goes: its answer, should it ever come, is unknown and goes nowhere either. */
    if (holder->tombs.count > router->max_tombs) sb_router_end(router, holder->tombs.head);
    load_changed(holder);
}

void sb_router_forget(sb_router *router, sb_peer *holder, uint32_t number)
{
    uint32_t entry;
    while ((entry = holder->tombs.head) != SB_NONE &&
           (int32_t)(number - sb_router_request(router, entry)->given_up_as) >= 0) {
        sb_router_end(router, entry);
    }
}

void sb_router_give_up_turn(sb_router *router, uint32_t entry)
{
    sb_request *request = sb_router_request(router, entry);
    uint32_t session = request->session, serial = request->serial;
    sb_router_give_up(router, entry);
    /* It may have had no holder, or have been the oldest of too many. */
    if (session != SB_NONE && request->serial == serial) sb_session_hold(router, session, entry);
}

uint32_t sb_router_first(const sb_router *router, const sb_peer *peer, sb_direction direction)
{
    uint32_t l = peer->worker && direction == SB_DOWN ? peer->busy_links : peer->links;
    while (l != SB_NONE) {
        const sb_link *link = sb_router_link_at(router, l);
        if (link->requests[direction].head != SB_NONE) return link->requests[direction].head;
        l = peer->worker ? link->next_of_worker : link->next_of_client;
    }
    return SB_NONE;
}

static uint32_t count_since(const sb_router *router, const sb_request_list *list, uint32_t at)
{
    uint32_t count = 0;
    /* Positions wrap; an outbox is far smaller than half their range. */
    for (uint32_t entry = list->head; entry != SB_NONE; entry = sb_router_request(router, entry)->next) {
        if ((int32_t)(sb_router_request(router, entry)->at - at) >= 0) count++;
    }
    return count;
}

uint32_t sb_router_held_since(const sb_router *router, const sb_peer *holder, uint32_t at)
{
    uint32_t count = count_since(router, &holder->tombs, at);
    for (uint32_t l = holder->worker ? holder->busy_links : holder->links; l != SB_NONE;) {
        const sb_link *link = sb_router_link_at(router, l);
        count += count_since(router, &link->requests[holder->worker ? SB_DOWN : SB_UP], at);
        l = holder->worker ? link->next_busy : link->next_of_client;
    }
    return count;
}

void sb_router_remove(sb_router *router, sb_peer *peer)
{
    while (peer->tombs.head != SB_NONE) sb_router_end(router, peer->tombs.head);
    while (peer->links != SB_NONE) link_drop(router, peer->links);
    while (peer->sessions != SB_NONE) {
        if (sb_router_session_at(router, peer->sessions)->created) {
            sb_session_end(router, peer->sessions);
        } else {
            sb_session_bind(router, peer->sessions, NULL);
        }
    }
    while (peer->owned != SB_NONE) {
        if (sb_router_session_at(router, peer->owned)->own) {
            sb_session_end(router, peer->owned);
        } else {
            sb_session_give(router, peer->owned, NULL);
        }
    }
}

sb_peer *sb_router_linked_client(const sb_router *router, uint32_t client_key, const sb_peer *worker)
{
    uint32_t hash = pair_hash(router, client_key, worker->key), at = hash, entry;
    while ((entry = sb_index_next(&router->by_pair, hash, &at)) != SB_NONE) {
        const sb_link *link = sb_router_link_at(router, entry);
        if (link->worker == worker && link->client->key == client_key) return link->client;
    }
    return NULL;
}

sb_peer *sb_router_only_client(const sb_router *router, const sb_peer *worker)
{
    uint32_t first = worker->busy_links != SB_NONE ? worker->busy_links : worker->links;
    const sb_link *link;
    uint32_t next;
    if (first == SB_NONE) return NULL;
    link = sb_router_link_at(router, first);
    next = worker->busy_links != SB_NONE ? link->next_busy : link->next_of_worker;
    return next == SB_NONE && link->given_up == worker->tombs.count ? link->client : NULL;
}
