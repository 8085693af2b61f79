#include "balance.h"

void sb_balance_free(sb_balance *balance)
{
    sb_free(balance->level);
    memset(balance, 0, sizeof *balance);
}

static bool grow(sb_balance *balance, uint32_t level)
{
    uint32_t levels = balance->levels ? balance->levels : 16;
    sb_balance_node **ring;
    while (levels <= level) levels *= 2;
    if (levels == balance->levels) return true;
    ring = sb_realloc(balance->level, levels * sizeof *ring);
    if (ring == NULL) return false;
    memset(ring + balance->levels, 0, (levels - balance->levels) * sizeof *ring);
    balance->level = ring;
    balance->levels = levels;
    return true;
}

/* The level of a load; without memory for it, the highest there is. */
static uint32_t level_of(sb_balance *balance, uint32_t load)
{
    uint32_t level = load < SB_BALANCE_LEVELS ? load : SB_BALANCE_LEVELS - 1;
    return level < balance->levels || grow(balance, level) ? level : balance->levels - 1;
}

static void link_last(sb_balance *balance, sb_balance_node *node, uint32_t level)
{
    sb_balance_node *first = balance->level[level];
    if (first == NULL) {
        balance->level[level] = node->next = node->prev = node;
    } else {
        node->next = first;
        node->prev = first->prev;
        first->prev->next = node;
        first->prev = node;
    }
    node->level = level;
    if (level < balance->lowest) balance->lowest = level;
}

static void unlink_node(sb_balance *balance, sb_balance_node *node)
{
    if (node->next == node) {
        balance->level[node->level] = NULL;
    } else {
        node->prev->next = node->next;
        node->next->prev = node->prev;
        if (balance->level[node->level] == node) balance->level[node->level] = node->next;
    }
}

bool sb_balance_add(sb_balance *balance, sb_balance_node *node, uint32_t load)
{
    if (!grow(balance, 0)) return false;
    if (balance->count++ == 0) balance->lowest = SB_BALANCE_LEVELS;
    node->balance = balance;
    link_last(balance, node, level_of(balance, load));
    return true;
}

void sb_balance_remove(sb_balance_node *node)
{
    if (node->balance == NULL) return;
    unlink_node(node->balance, node);
    node->balance->count--;
    node->balance = NULL;
}

void sb_balance_update(sb_balance_node *node, uint32_t load)
{
    sb_balance *balance = node->balance;
    uint32_t level;
    /* Even of one alone: where it stands counts as soon as there is another. */
    if (balance == NULL) return;
    level = level_of(balance, load);
    if (level == node->level) return;
    unlink_node(balance, node);
    link_last(balance, node, level);
}

sb_balance_node *sb_balance_pick(sb_balance *balance)
{
    sb_balance_node *node;
    if (balance->count == 0) return NULL;
    /* Loads change by one at a time, so this loop moves as far up as loads have moved. */
    while (balance->level[balance->lowest] == NULL) balance->lowest++;
    node = balance->level[balance->lowest];
    balance->level[balance->lowest] = node->next;
    return node;
}
