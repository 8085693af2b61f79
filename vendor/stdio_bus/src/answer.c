#include "answer.h"

#include <stdarg.h>
#include <stdio.h>

static bool putf(sb_buf *out, const char *format, ...) SB_PRINTF(2, 3);

/* For short, bounded pieces. */
static bool putf(sb_buf *out, const char *format, ...)
{
    char piece[128];
    va_list args;
    int len;
    va_start(args, format);
    len = vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    return len >= 0 && (size_t)len < sizeof piece && sb_buf_append(out, piece, (size_t)len);
}

/* Length of the UTF-8 character at p, or 0 if it is none (RFC 3629 section 4). */
static size_t utf8_len(const unsigned char *p, size_t left)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (len == 0 || len > left) return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0)) return 0;
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90)) return 0;
    return len;
}

static bool put_escaped(sb_buf *out, unsigned char c)
{
    switch (c) {
    case '"': return sb_buf_append(out, "\\\"", 2);
    case '\\': return sb_buf_append(out, "\\\\", 2);
    case '\n': return sb_buf_append(out, "\\n", 2);
    case '\r': return sb_buf_append(out, "\\r", 2);
    case '\t': return sb_buf_append(out, "\\t", 2);
    default: return putf(out, "\\u%04x", c);
    }
}

bool sb_answer_string(sb_buf *out, sb_span text)
{
    const unsigned char *p = (const unsigned char *)text.ptr;
    size_t left = text.len;
    bool ok = sb_buf_append(out, "\"", 1);
    while (left > 0 && ok) {
        size_t len = utf8_len(p, left);
        if (len == 0) {
            ok = sb_buf_append(out, "\xef\xbf\xbd", 3);
            len = 1;
        } else if (*p < 0x20 || *p == '"' || *p == '\\') {
            ok = put_escaped(out, *p);
        } else {
            ok = sb_buf_append(out, (const char *)p, len);
        }
        p += len;
        left -= len;
    }
    return ok && sb_buf_append(out, "\"", 1);
}

static bool put_exit(sb_buf *out, const sb_error *error)
{
    bool ok = sb_buf_append(out, ",\"exit\":{", 9);
    if (error->exit.signal != 0) {
        ok = ok && putf(out, "\"signal\":%d", error->exit.signal);
    } else {
        ok = ok && putf(out, "\"code\":%d", error->exit.code);
    }
    ok = ok && putf(out, ",\"uptime_ms\":%llu", (unsigned long long)error->uptime_ms);
    if (error->stderr_tail != NULL) {
        ok = ok && sb_buf_append(out, ",\"stderr_tail\":", 15) && sb_answer_string(out, sb_span_of(error->stderr_tail));
    }
    return ok && sb_buf_append(out, "}", 1);
}

sb_error sb_error_of(int code, const char *reason, const char *message)
{
    sb_error error = {0};
    error.code = code;
    error.reason = reason;
    error.message = message;
    error.worker = -1;
    error.sent = -1;
    return error;
}

static bool put_id(sb_buf *out, sb_span id)
{
    bool ok = sb_buf_append(out, "{\"jsonrpc\":\"2.0\",\"id\":", 22);
    return ok && (id.ptr != NULL ? sb_buf_append(out, id.ptr, id.len) : sb_buf_append(out, "null", 4));
}

bool sb_answer_error(sb_buf *out, sb_span id, const sb_error *error)
{
    bool ok = put_id(out, id) && putf(out, ",\"error\":{\"code\":%d,\"message\":", error->code);
    ok = ok && sb_answer_string(out, sb_span_of(error->message));
    ok = ok && putf(out, ",\"data\":{\"source\":\"stdio_bus\",\"reason\":\"%s\"", error->reason);
    if (error->pool != NULL) {
        ok = ok && sb_buf_append(out, ",\"pool\":", 8) && sb_answer_string(out, sb_span_of(error->pool));
    }
    if (error->worker >= 0) ok = ok && putf(out, ",\"worker\":%d", error->worker);
    if (error->exited) ok = ok && put_exit(out, error);
    if (error->sent >= 0) ok = ok && putf(out, ",\"sent\":%s", error->sent ? "true" : "false");
    return ok && sb_buf_append(out, "}}}", 3);
}

bool sb_answer_result(sb_buf *out, sb_span id, sb_span result)
{
    return put_id(out, id) && sb_buf_append(out, ",\"result\":", 10) && sb_buf_append(out, result.ptr, result.len) && sb_buf_append(out, "}", 1);
}
