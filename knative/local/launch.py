"""Run one part, and end it when the runner has ended: `python -m knative.local.launch MODULE ...`.

The part's standard input is a pipe that the runner keeps open and never writes to. When the runner ends, even by
kill -9, the kernel closes that pipe. The part then sends itself SIGTERM, so that it drains, and SIGKILL a few seconds
later. Unlike the kernel's parent-death signal, this also works on systems other than Linux and does not depend on the
thread that started the part. It needs no additional process.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from typing import Final

DRAIN_SECONDS: Final = 5.0


def main() -> None:
    """Run the module that the first argument names as the main program, with the other arguments."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m knative.local.launch MODULE [ARGUMENT...]")
    pipe = os.dup(0)
    with open(os.devnull) as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_watch, args=(pipe,), daemon=True, name="runner-watch").start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _watch(pipe: int) -> None:
    while os.read(pipe, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(DRAIN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
