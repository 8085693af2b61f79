//! What the embedding API v2 promises to hosts that were built for it: sizes,
//! offsets and values, checked when this file is compiled.

use core::mem::{offset_of, size_of};

use super::*;

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<stdio_bus_options_t>() == 112);
    assert!(offset_of!(stdio_bus_options_t, config_path) == 0);
    assert!(offset_of!(stdio_bus_options_t, config_json) == 8);
    assert!(offset_of!(stdio_bus_options_t, listener) == 16);
    assert!(offset_of!(stdio_bus_options_t, on_message) == 48);
    assert!(offset_of!(stdio_bus_options_t, on_error) == 56);
    assert!(offset_of!(stdio_bus_options_t, on_log) == 64);
    assert!(offset_of!(stdio_bus_options_t, on_worker) == 72);
    assert!(offset_of!(stdio_bus_options_t, on_client_connect) == 80);
    assert!(offset_of!(stdio_bus_options_t, on_client_disconnect) == 88);
    assert!(offset_of!(stdio_bus_options_t, user_data) == 96);
    assert!(offset_of!(stdio_bus_options_t, log_level) == 104);
    assert!(size_of::<stdio_bus_listener_config_t>() == 32);

    // Fields are appended only.
    assert!(size_of::<stdio_bus_pool_info_t>() == 104);
    assert!(offset_of!(stdio_bus_pool_info_t, id) == 56);
    assert!(offset_of!(stdio_bus_pool_info_t, answered) == 64);
    assert!(offset_of!(stdio_bus_pool_info_t, p50_us) == 72);
    assert!(offset_of!(stdio_bus_pool_info_t, max_us) == 96);
};

const _: () = {
    assert!(size_of::<stdio_bus_stats_t>() == 8 * size_of::<u64>());
    assert!(offset_of!(stdio_bus_stats_t, messages_in) == 0);
    assert!(offset_of!(stdio_bus_stats_t, worker_restarts) == 32);
    assert!(offset_of!(stdio_bus_stats_t, client_disconnects) == 56);

    assert!(STDIO_BUS_EMBED_API_VERSION == 2);
    assert!(STDIO_BUS_OK == 0);
    assert!(STDIO_BUS_ERR == -1);
    assert!(STDIO_BUS_EAGAIN == -2);
    assert!(STDIO_BUS_EOF == -3);
    assert!(STDIO_BUS_EFULL == -4);
    assert!(STDIO_BUS_ENOTFOUND == -5);
    assert!(STDIO_BUS_EINVAL == -6);
    assert!(STDIO_BUS_ERR_CONFIG == -10);
    assert!(STDIO_BUS_ERR_WORKER == -11);
    assert!(STDIO_BUS_ERR_ROUTING == -12);
    assert!(STDIO_BUS_ERR_BUFFER == -13);
    assert!(STDIO_BUS_ERR_INVALID == -14);
    assert!(STDIO_BUS_ERR_STATE == -15);

    assert!(STDIO_BUS_STATE_CREATED == 0);
    assert!(STDIO_BUS_STATE_STARTING == 1);
    assert!(STDIO_BUS_STATE_RUNNING == 2);
    assert!(STDIO_BUS_STATE_STOPPING == 3);
    assert!(STDIO_BUS_STATE_STOPPED == 4);

    assert!(STDIO_BUS_LISTEN_NONE == 0);
    assert!(STDIO_BUS_LISTEN_TCP == 1);
    assert!(STDIO_BUS_LISTEN_UNIX == 2);
};
