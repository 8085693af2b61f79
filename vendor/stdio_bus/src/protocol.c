#include "protocol.h"

#include "answer.h"
#include "scan.h"

/* ---- methods -------------------------------------------------------------------------- */

typedef struct {
    const char *method; /* as JSON, quotes included */
    size_t len;
    sb_meaning meaning;
} row;

#define ROW(method, meaning) {"\"" method "\"", sizeof "\"" method "\"" - 1, meaning}
#define END {NULL, 0, SB_MEANS_NOTHING}

/* Whatever is spoken: chunks belong to the turn they come in. */
static const row ndjson_client[] = {
    ROW("session/prompt", SB_MEANS_PROMPT),
    END,
};

/* An initialize may show what is spoken. */
static const row auto_client[] = {
    ROW("initialize", SB_MEANS_INITIALIZE),
    ROW("session/prompt", SB_MEANS_PROMPT),
    END,
};

/* MCP [Lifecycle, Cancellation, Progress]. */
static const row mcp_client[] = {
    ROW("initialize", SB_MEANS_INITIALIZE),
    ROW("notifications/initialized", SB_MEANS_INITIALIZED),
    ROW("notifications/cancelled", SB_MEANS_CANCEL),
    ROW("$/cancel_request", SB_MEANS_CANCEL), /* not MCP's, and yet no stranger's id may pass in it */
    ROW("notifications/progress", SB_MEANS_PROGRESS),
    END,
};

/* ACP v1 [Initialization, Session Setup, Prompt Turn, Cancellation]; session/fork and session/delete are drafts. */
static const row acp_client[] = {
    ROW("initialize", SB_MEANS_INITIALIZE),
    ROW("session/new", SB_MEANS_NEW_SESSION),
    ROW("session/fork", SB_MEANS_NEW_SESSION),
    ROW("session/load", SB_MEANS_LOAD_SESSION),
    ROW("session/resume", SB_MEANS_LOAD_SESSION),
    ROW("session/close", SB_MEANS_CLOSE_SESSION),
    ROW("session/delete", SB_MEANS_CLOSE_SESSION),
    ROW("session/prompt", SB_MEANS_PROMPT),
    ROW("session/cancel", SB_MEANS_CANCEL_TURN),
    ROW("$/cancel_request", SB_MEANS_CANCEL),
    ROW("notifications/cancelled", SB_MEANS_CANCEL),
    END,
};

static const row worker[] = {
    ROW("session/request_permission", SB_MEANS_PERMISSION),
    ROW("notifications/progress", SB_MEANS_PROGRESS),
    ROW("notifications/cancelled", SB_MEANS_CANCEL),
    ROW("$/cancel_request", SB_MEANS_CANCEL),
    ROW("notifications/tools/list_changed", SB_MEANS_LIST_CHANGED),
    ROW("notifications/prompts/list_changed", SB_MEANS_LIST_CHANGED),
    ROW("notifications/resources/list_changed", SB_MEANS_LIST_CHANGED),
    ROW("ping", SB_MEANS_PING),
    END,
};

static sb_meaning find(const row *rows, sb_span method)
{
    const row *at;
    if (method.ptr == NULL) return SB_MEANS_NOTHING;
    for (at = rows; at->method != NULL; at++) {
        if (at->len == method.len && memcmp(at->method, method.ptr, method.len) == 0) return at->meaning;
    }
    if (memchr(method.ptr, '\\', method.len) == NULL) return SB_MEANS_NOTHING;
    /* It may be spelled with escapes. */
    for (at = rows; at->method != NULL; at++) {
        char plain[64];
        memcpy(plain, at->method + 1, at->len - 2);
        plain[at->len - 2] = '\0';
        if (sb_json_string_is(method, plain)) return at->meaning;
    }
    return SB_MEANS_NOTHING;
}

sb_meaning sb_protocol_client_means(sb_protocol protocol, sb_span method)
{
    switch (protocol) {
    case SB_PROTOCOL_MCP: return find(mcp_client, method);
    case SB_PROTOCOL_ACP: return find(acp_client, method);
    case SB_PROTOCOL_AUTO: return find(auto_client, method);
    default: return find(ndjson_client, method);
    }
}

sb_meaning sb_protocol_worker_means(sb_span method)
{
    return find(worker, method);
}

/* ---- fields ------------------------------------------------------------------------------ */

static sb_span member(sb_span object, const char *key)
{
    sb_span none = {NULL, 0};
    return object.ptr != NULL && object.ptr[0] == '{' ? sb_json_find(object, key) : none;
}

static bool is_number(sb_span token)
{
    return token.ptr != NULL && (token.ptr[0] == '-' || (token.ptr[0] >= '0' && token.ptr[0] <= '9'));
}

/* A token that can be an id: a string (an empty one too) or a number. */
static sb_span id_of(sb_span token)
{
    static const sb_span none = {NULL, 0};
    return token.ptr != NULL && (token.ptr[0] == '"' || is_number(token)) ? token : none;
}

sb_protocol sb_protocol_of_initialize(sb_span params)
{
    sb_span version = member(params, "protocolVersion");
    if (is_number(version)) return SB_PROTOCOL_ACP;
    return sb_json_is_text(version) && member(params, "capabilities").ptr != NULL ? SB_PROTOCOL_MCP : SB_PROTOCOL_AUTO;
}

bool sb_protocol_is_stateless(sb_span meta)
{
    return sb_json_is_text(member(meta, "io.modelcontextprotocol/protocolVersion"));
}

/* Whether text may have a key in it: it stands there, or there are escapes that could spell it. */
static bool may_have_meta(sb_span text)
{
    const char *p = text.ptr, *end = text.ptr + text.len;
    while ((p = memchr(p, '_', (size_t)(end - p))) != NULL) {
        if (end - p > 5 && memcmp(p, "_meta\"", 6) == 0) return true;
        p++;
    }
    return memchr(text.ptr, '\\', text.len) != NULL;
}

sb_span sb_protocol_meta(sb_span params)
{
    static const sb_span none = {NULL, 0};
    sb_span meta;
    if (params.ptr == NULL || !may_have_meta(params)) return none;
    meta = member(params, "_meta");
    return meta.ptr != NULL && meta.ptr[0] == '{' ? meta : none;
}

sb_span sb_protocol_session(sb_span object)
{
    static const sb_span none = {NULL, 0};
    sb_span token = member(object, "sessionId");
    return sb_json_is_text(token) ? token : none;
}

sb_span sb_protocol_asked_token(sb_span meta)
{
    return id_of(member(meta, "progressToken"));
}

sb_span sb_protocol_told_token(sb_span params)
{
    return id_of(member(params, "progressToken"));
}

sb_span sb_protocol_cancelled(sb_span params)
{
    return id_of(member(params, "requestId"));
}

sb_span sb_protocol_subscription(sb_span meta)
{
    return id_of(member(meta, "io.modelcontextprotocol/subscriptionId"));
}

/* ---- frames --------------------------------------------------------------------------------- */

static bool put(sb_buf *out, sb_span text)
{
    return sb_buf_append(out, text.ptr, text.len);
}

static bool put_text(sb_buf *out, const char *text)
{
    return put(out, sb_span_of(text));
}

bool sb_protocol_put_initialize(sb_buf *out, sb_span id, sb_span params)
{
    return put_text(out, "{\"jsonrpc\":\"2.0\",\"id\":") && put(out, id) &&
           put_text(out, ",\"method\":\"initialize\",\"params\":") && put(out, params) && put_text(out, "}");
}

bool sb_protocol_put_initialized(sb_buf *out)
{
    return put_text(out, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
}

bool sb_protocol_put_cancel(sb_buf *out, sb_protocol protocol, sb_span id)
{
    const char *method = protocol == SB_PROTOCOL_MCP ? "notifications/cancelled" : "$/cancel_request";
    return put_text(out, "{\"jsonrpc\":\"2.0\",\"method\":\"") && put_text(out, method) &&
           put_text(out, "\",\"params\":{\"requestId\":") && put(out, id) && put_text(out, "}}");
}

bool sb_protocol_put_ping(sb_buf *out, sb_span id)
{
    return put_text(out, "{\"jsonrpc\":\"2.0\",\"id\":") && put(out, id) && put_text(out, ",\"method\":\"ping\"}");
}

bool sb_protocol_put_cancel_turn(sb_buf *out, sb_span session)
{
    return put_text(out, "{\"jsonrpc\":\"2.0\",\"method\":\"session/cancel\",\"params\":{\"sessionId\":") &&
           sb_answer_string(out, session) && put_text(out, "}}");
}
