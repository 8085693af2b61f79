/*
 * exclusive.c - pools with "clients": "exclusive". Such a pool has no workers
 * itself; each client that uses it gets a private pool with one worker, made
 * when its first message comes, and retired when the client leaves. So all
 * else, the handshake included, is the client's own business with its worker.
 */
#include "dispatch.h"

/* The private pools of a client. */
static sb_pool **list_of(stdio_bus_t *bus, sb_peer *client)
{
    sb_conn *conn = sb_conn_of(bus, client);
    return conn != NULL ? &conn->private_pools : &bus->host_pools;
}

sb_pool *sb_exclusive_find(stdio_bus_t *bus, const sb_pool *pool, sb_peer *client)
{
    sb_pool *found = *list_of(bus, client);
    while (found != NULL && found->model != pool) found = found->next_of_tenant;
    return found;
}

static sb_pool *make(stdio_bus_t *bus, sb_pool *pool, sb_peer *client)
{
    sb_pool *made = sb_pool_new_private(bus, pool), **list = list_of(bus, client);
    if (made == NULL) return NULL;
    made->tenant = client;
    made->next_of_tenant = *list;
    *list = made;
    made->next = bus->private_pools;
    bus->private_pools = made;
    pool->taken++;
    sb_pool_start_workers(bus, made);
    return made;
}

sb_pool *sb_exclusive_take(stdio_bus_t *bus, sb_pool *pool, sb_peer *client)
{
    sb_pool *found = sb_exclusive_find(bus, pool, client);
    if (found != NULL) return found;
    return pool->taken < pool->config.instances ? make(bus, pool, client) : NULL;
}

/* Takes a pool off the list of all private ones and retires it. */
static void retire(stdio_bus_t *bus, sb_pool *pool)
{
    sb_pool **at = &bus->private_pools;
    while (*at != pool) at = &(*at)->next;
    *at = pool->next;
    pool->model->taken--;
    pool->tenant = NULL;
    sb_pool_retire(bus, pool);
    sb_pool_fail_queue(bus, pool);
}

void sb_exclusive_leave(stdio_bus_t *bus, sb_peer *client)
{
    sb_pool **list = list_of(bus, client);
    while (*list != NULL) {
        sb_pool *pool = *list;
        *list = pool->next_of_tenant;
        retire(bus, pool);
    }
}

/* Takes a pool off the list of its tenant. */
static void unlist(stdio_bus_t *bus, sb_pool *pool)
{
    sb_pool **at = list_of(bus, pool->tenant);
    while (*at != pool) at = &(*at)->next_of_tenant;
    *at = pool->next_of_tenant;
}

static sb_pool *first_copy(const stdio_bus_t *bus, const sb_pool *pool)
{
    sb_pool *copy = bus->private_pools;
    while (copy != NULL && copy->model != pool) copy = copy->next;
    return copy;
}

void sb_exclusive_replace(stdio_bus_t *bus, const sb_pool *pool, sb_pool *to)
{
    sb_pool *old;
    /* From the beginning each time: a client that can't take an answer is closed, and its other pools leave the list. */
    while ((old = first_copy(bus, pool)) != NULL) {
        sb_peer *client = old->tenant;
        sb_pool *made;
        unlist(bus, old);
        made = to != NULL && to->config.exclusive ? sb_exclusive_take(bus, to, client) : to;
        if (made != NULL) {
            sb_handshake_inherit(made, old);
            sb_pool_flush_queue(bus, old, made);
        }
        retire(bus, old);
    }
}
