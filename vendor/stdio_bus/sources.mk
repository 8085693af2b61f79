# The source files of libstdio_bus.a, in src/. The repository's build.rs reads this list.
SB_SOURCES = \
	alloc.c answer.c balance.c buf.c bus.c cancel.c clients.c clock.c config.c conn.c \
	deliver.c depart.c diag.c dispatch.c envelope.c exclusive.c ext.c fd.c frame.c handshake.c hooks.c launch.c \
	json.c latency.c listener.c loop.c poller_epoll.c poller_poll.c pool.c protocol.c queue.c reap.c reload.c \
	report.c route.c router.c scan.c session.c share.c sink.c source.c spawn.c splice.c status.c \
	table.c timer.c to_client.c worker.c
