"""Schemathesis against what the gateway says of itself (/openapi.json): all checks, as everybody that there is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from knative.local.demo.shop import Shop
from tests.e2e.platform import LocalPlatform
from tests.fuzz.conftest import MINUTES, rounds

CONFIG = Path(__file__).with_name("schemathesis.toml")
# What changes who calls comes last, or the rest would be called by nobody; the bounded form leaves it out.
LAST = (
    "DELETE /v1/users/me",
    "PUT /v1/admin/users/{user_id}/roles",
    "PUT /v1/users/me/password",
    "DELETE /v1/sessions",
)
BOUNDED = ("--phases", "examples,fuzzing", "--max-examples", "3")
LONG = ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "15")


async def token(platform: LocalPlatform, caller: str) -> str:
    """Of somebody new."""
    async with Shop(platform.base_url) as shop:
        person = await shop.register()
        if caller == "administrator":
            admin = await shop.login(platform.admin_email, platform.admin_password)
            path = f"/v1/admin/users/{person.id}/roles"
            await shop.call("PUT", path, who=admin, json={"roles": ["admin", "customer"]})
            person = await shop.login(person.email, person.password)
        return str(person.tokens["access_token"])


def schemathesis(platform: LocalPlatform, out: Path, seed: int, *options: str) -> subprocess.Popen[bytes]:
    """A run of it; it writes to `out` what was wrong, and how to do it again with curl."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    command += [f"{platform.base_url}/openapi.json", "--url", platform.base_url, "--checks", "all"]
    command += ["--seed", str(seed), "--continue-on-failure", "--no-color", *(LONG if MINUTES else BOUNDED)]
    with out.open("wb") as told:
        return subprocess.Popen([*command, *options], stdout=told, stderr=subprocess.STDOUT, cwd=platform.folder)


def test_every_answer_is_one_that_the_api_describes(platform: LocalPlatform, tmp_path: Path) -> None:
    for seed in rounds(0.35):
        everybody = {
            caller: [f"--header=Authorization: Bearer {asyncio.run(token(platform, caller))}"]
            for caller in ("customer", "administrator")
        }
        everybody |= {"anonymous": []}
        passes = [[f"--exclude-name={name}" for name in LAST], [f"--include-name={name}" for name in LAST]]
        for names in passes if MINUTES else passes[:1]:
            runs = {
                caller: schemathesis(platform, tmp_path / caller, seed, *who, *names)
                for caller, who in everybody.items()
            }
            statuses = {caller: run.wait() for caller, run in runs.items()}
            assert not any(statuses.values()), "".join(
                f"As {caller}:\n{(tmp_path / caller).read_text()}" for caller, status in statuses.items() if status
            )
