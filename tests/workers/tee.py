"""Logs what a worker reads, whatever it reads with.

`import tee; tee.stdin(FILE)` in a worker, or `tee.py FILE MODULE ARGS...` around one that can't be
changed. FILE gets `PID start`, then `PID LINE` for each line, then `PID eof`.
"""
import os
import runpy
import sys
import threading


def stdin(path):
    log = open(path, "ab", buffering=0)  # O_APPEND: each entry in one write, several processes
    source = os.fdopen(os.dup(0), "rb")
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    pid = b"%d " % os.getpid()
    log.write(pid + b"start\n")

    def copy():
        with os.fdopen(writer, "wb", buffering=0) as sink:
            for line in source:
                log.write(pid + line.rstrip(b"\n") + b"\n")
                try:
                    sink.write(line)
                except OSError:
                    break
            log.write(pid + b"eof\n")

    threading.Thread(target=copy, daemon=True).start()


if __name__ == "__main__":
    stdin(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
