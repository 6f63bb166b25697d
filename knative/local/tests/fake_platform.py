"""The command line with fakes in place of every module that the manifests name; all else is as in `make up`."""

from __future__ import annotations

import os
import sys

from knative.local import parts
from knative.local.__main__ import main


def launch(module: str, *_: str) -> tuple[str, ...]:
    """A fake part, whatever was asked for."""
    return parts.launch("knative.local.tests.fake_part", module)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, launch))
