"""The garbage collector, told what a server is like."""

import gc


def freeze() -> None:
    """Call it once, when the process serves.

    What is there by then stays for the process's life, and is not looked at again; what a request makes goes with its
    last reference, so that cycles are few and may wait. The default costs a tenth of the CPU of an order (16.4 against
    14.7 ms, in turn on one machine).
    """
    gc.freeze()
    gc.set_threshold(5000, 20, 50)
