"""`python -m requirements.documents TOOLS`: check the OpenAPI and AsyncAPI documents; any finding is an error.

TOOLS is a folder in which `npm ci` has installed Spectral, Redocly and AsyncAPI's parser.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.app import create_app
from gateway.settings import Settings

FOLDER = Path(__file__).parent / "node"
ASYNCAPI = Path(__file__).parents[1] / "events/schemas/asyncapi.yaml"


def main(tools: Path) -> int:
    """Check both documents; return the exit code: 0 without findings, else 1."""
    with TemporaryDirectory() as made:
        openapi = Path(made, "openapi.json")
        openapi.write_text(json.dumps(create_app(Settings()).openapi(), indent=1))
        spectral = ["spectral", "lint", "--quiet", "--ruleset", str(FOLDER / "spectral.yaml"), "--fail-severity=hint"]
        redocly = ["redocly", "lint", "--config", str(FOLDER / "redocly.yaml"), "--format=github-actions"]
        commands = {
            "Spectral": [*spectral, str(openapi), str(ASYNCAPI)],
            "Redocly": [*redocly, str(openapi)],
            "AsyncAPI's parser": ["node", str(FOLDER / "asyncapi.mjs"), str(ASYNCAPI)],
        }
        failed = [name for name, command in commands.items() if not passes(command, tools)]
    if failed:
        print("Not clean:", ", ".join(failed), file=sys.stderr)
    return bool(failed)


def passes(command: list[str], tools: Path) -> bool:
    """Run a command in the folder `tools`; return whether it finds nothing. If it finds something, print its output."""
    path = f"{tools.resolve() / 'node_modules/.bin'}{os.pathsep}{os.environ['PATH']}"
    quiet = {"PATH": path, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    run = subprocess.run(command, cwd=tools, env={**os.environ, **quiet}, capture_output=True, text=True, check=False)
    said = run.stdout + run.stderr
    found = run.returncode != 0 or "::warning" in said or "::error" in said
    if found:
        print(said)
    return not found


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
