/*
 * balance.h - the ready workers of one pool, ordered by load, so that the
 * least loaded one is found and every change is made in constant time. Pure.
 */
#ifndef SB_BALANCE_H
#define SB_BALANCE_H

#include "base.h"

typedef struct sb_balance sb_balance;

/* A worker's place; embedded in its peer. */
typedef struct sb_balance_node {
    struct sb_balance_node *next; /* ring of the nodes with the same level */
    struct sb_balance_node *prev;
    sb_balance *balance; /* NULL: not ready, takes nothing */
    uint32_t level;
} sb_balance_node;

/* Loads from here on are not told apart. */
#define SB_BALANCE_LEVELS 1024u

struct sb_balance {
    sb_balance_node **level; /* one node of each ring, or NULL */
    uint32_t levels;
    uint32_t lowest; /* no node below this level */
    uint32_t count;
};

void sb_balance_free(sb_balance *balance);

/* Adds a worker with this load. False without memory. */
bool sb_balance_add(sb_balance *balance, sb_balance_node *node, uint32_t load);
void sb_balance_remove(sb_balance_node *node);

/* Tells that the load has changed; nothing happens for a worker that isn't ready. */
void sb_balance_update(sb_balance_node *node, uint32_t load);

/* The least loaded worker, in turn among equals; NULL if there is none. */
sb_balance_node *sb_balance_pick(sb_balance *balance);

#endif
