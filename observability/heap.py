"""Tune the garbage collector for a server."""

import gc


def freeze() -> None:
    """Exclude all current objects from garbage collection, and collect less often; call it once, when serving.

    Objects from the start live as long as the process. Objects of a request are freed with their last reference, so
    cycles are few. The default settings cost a tenth of the CPU of an order (16.4 against 14.7 ms, on one machine).
    """
    gc.freeze()
    gc.set_threshold(5000, 20, 50)
