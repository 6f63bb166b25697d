"""The command line of the local platform."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from functions.runtime.settings import SettingsError
from functions.runtime.store.port import NotAvailable
from knative.local import manifests, parts
from knative.local.data import Data, DataInUse
from knative.local.manifests import ManifestError
from knative.local.parts import Launch, launch
from knative.local.ports import PortTaken
from knative.local.run import ROOT, Options, Run
from knative.local.terminal import Terminal

DESCRIPTION = """Runs the whole platform on this machine from the manifests in knative/base: one process per
domain, the gateway, the broker, and timers for the PingSources. Ctrl-C stops it."""

EPILOG = """Variables of the shell reach every part and win over the manifests (LOG_LEVEL, SMTP_URL, OTEL_*).
ADMIN_EMAIL and ADMIN_PASSWORD, at the first start, name the administrator instead of a random password.
STORE_URL=dynamodb://... keeps the state in your own DynamoDB.
`make up ARGS=stop` stops the platform that runs on --data."""


def main(argv: Sequence[str], shell: Mapping[str, str], launch: Launch = launch) -> int:
    """Run or stop a platform; return the exit status."""
    arguments = _parser().parse_args(argv)
    terminal = Terminal()
    if arguments.command == "stop":
        return _stop(Data(arguments.data), terminal)
    try:
        return _run(_options(arguments), terminal, shell, launch)
    except (DataInUse, PortTaken, ManifestError, NotAvailable, SettingsError) as error:
        terminal.line(terminal.paint(str(error), "bad"))
        return 1


def _run(options: Options, terminal: Terminal, shell: Mapping[str, str], launch: Launch) -> int:
    data = Data(options.data, options.store)
    data.hold()
    if options.fresh:
        data.empty()
    data.prepare((*parts.callers(manifests.load(options.manifests)), parts.CONSOLE))
    terminal.line(f"Starting the shop from {_short(options.manifests)}, with its data in {_short(data.folder)}")

    with _database(options, data, terminal, shell) as variables:

        async def run() -> int:
            return await Run(options, data, terminal, {**shell, **variables}, launch).main()

        return asyncio.run(run())


def _database(
    options: Options, data: Data, terminal: Terminal, shell: Mapping[str, str]
) -> AbstractContextManager[Mapping[str, str]]:
    if options.store == "sqlite":
        return nullcontext({})
    if options.store == "postgres":
        from knative.local import postgres  # imported only with --store postgres

        terminal.line("The stores are on PostgreSQL" + ("" if shell.get("DATABASE_URL") else " in the data folder"))
        log = data.logs / "postgres.log"
        return postgres.running(data.folder / "postgres", log, shell, terminal.line, fresh=options.fresh)
    terminal.line("The stores are on DynamoDB Local (its first use here fetches it, with Maven)")
    from knative.local import dynamodb  # imported only with --store dynamodb

    return dynamodb.running(data.folder / "dynamodb", data.logs / "dynamodb.log")


def _stop(data: Data, terminal: Terminal) -> int:
    pid = data.running().get("pid")
    if not pid:
        terminal.line(f"Nothing runs on {_short(data.folder)}.")
        return 1
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        data.withdraw()
    deadline = time.monotonic() + 60
    while data.running() and time.monotonic() < deadline:
        time.sleep(0.1)
    terminal.line("Stopped." if not data.running() else f"The platform (pid {pid}) still runs.")
    return 1 if data.running() else 0


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        data=arguments.data,
        manifests=arguments.manifests,
        fresh=arguments.fresh,
        reload=arguments.reload,
        seed=arguments.seed,
        port_offset=None if arguments.ports == "free" else arguments.port_offset,
        logs=arguments.logs,
        store=arguments.store,
        console=arguments.console,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make up ARGS=...",
        usage="make up ARGS='[options] [run | stop]'",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_modes(parser.add_argument)
    _add_places(parser.add_argument)
    return parser


def _add_modes(add: Callable[..., object]) -> None:
    add("command", nargs="?", choices=["run", "stop"], default="run", help="run (the default) or stop")
    add("--fresh", action="store_true", help="empty the data first")
    add("--reload", action="store_true", help="restart a part when its sources or manifests change")
    add("--no-seed", dest="seed", action="store_false", help="do not load the demo products into an empty store")
    console = "do not run the console, and record no traces for it"
    add("--no-console", dest="console", action="store_false", help=console)
    levels = ["all", "warn", "error", "none"]
    add("--logs", choices=levels, default="warn", help="which log lines to show here")


def _add_places(add: Callable[..., object]) -> None:
    add("--data", type=Path, default=ROOT / ".data", metavar="DIR", help="the data folder (default: .data)")
    stores = (
        "where the domains keep their state: files (the default), PostgreSQL (the server at DATABASE_URL, or a private "
        "one of this machine's programs), or DynamoDB Local (needs Java and Maven)"
    )
    add("--store", choices=["sqlite", "postgres", "dynamodb"], default="sqlite", help=stores)
    add("--port-offset", type=int, default=0, metavar="N", help="add N to all ports, to run several platforms")
    ports = "free: choose unused ports (for tests)"
    add("--ports", choices=["fixed", "free"], default="fixed", help=ports)
    base = ROOT / "knative" / "base"
    add("--manifests", type=Path, default=base, metavar="DIR", help="a kustomization's folder")


def _short(path: Path) -> str:
    resolved = path.resolve()
    return str(resolved.relative_to(ROOT)) if resolved.is_relative_to(ROOT) else str(resolved)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
