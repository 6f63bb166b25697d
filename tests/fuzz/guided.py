"""`python -m tests.fuzz.guided NAME SECONDS FOLDER`: fuzzes one parser with atheris, guided by code coverage.

If the parser raises an unexpected error, or takes longer than 10 s, the run fails and leaves the input as
FOLDER/NAME-... . Inputs that reach new code are kept in FOLDER/NAME for the next run. Atheris has an environment of its
own (see the Makefile), because it is large and supports few platforms.
"""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.stderr.write("There is no atheris for this platform and Python: the parsers are fuzzed without its guidance.\n")
    sys.exit(0)

with atheris.instrument_imports(include=["events", "functions", "gateway", "jwt", "yaml"]):
    from tests.fuzz.parsers import PARSERS, SEEDS


def main(name: str, seconds: str, folder: str) -> None:
    """Fuzz the parser `name` for `seconds`, with its inputs in `folder`."""
    corpus = Path(folder, name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, good in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(good)
    bounds = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=10",
        f"-artifact_prefix={folder}/{name}-",
    ]
    atheris.Setup([sys.argv[0], *bounds, str(corpus)], PARSERS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
