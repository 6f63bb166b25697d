"""A backup with orders in flight, more orders, and the way back: what the backup has goes on and adds up."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from knative.local.demo.shop import Shop
from tests.e2e.platform import ROOT, LocalPlatform, given
from tests.e2e.test_crashes import a_product, assert_it_adds_up, place_all


async def backup(command: str, folder: Path, data: Path) -> None:
    line = [sys.executable, "-m", "knative.local.backup", command, str(folder), "--data", str(data)]
    done = await asyncio.to_thread(subprocess.run, line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(given() is not None, reason="needs a platform of its own, to restore it: unset E2E_BASE_URL")
async def test_after_a_restore_every_order_of_the_backup_ends_and_all_adds_up(tmp_path: Path) -> None:
    platform = LocalPlatform(tmp_path / "data")
    await asyncio.to_thread(platform.start)
    async with Shop(platform.base_url) as shop:
        admin = await shop.login(platform.admin_email, platform.admin_password)
        who = await shop.register()
        product = (await a_product(shop, admin, "BACKUP"))["id"]
        before = await place_all(shop, who, product, 20)
        in_flight = asyncio.create_task(place_all(shop, who, product, 80))
        await backup("backup", tmp_path / "backup", platform.folder)
        await in_flight
        after = [(await shop.order(who, {product: 1}))["id"] for _ in range(10)]
        path = f"/v1/products/{product}"
        _, _, lost = await shop.raw("PATCH", path, who=admin, json={"name": "Of the life before"})
        cursor = (await shop.call("GET", "/v1/orders?limit=1", who=who))["next_cursor"]
    assert await asyncio.to_thread(platform.stop) == 0, platform.output()

    await backup("restore", tmp_path / "backup", platform.folder)
    await asyncio.to_thread(platform.start)

    async with Shop(platform.base_url) as shop:
        for refused in (who, admin):
            status, problem, _ = await shop.raw("GET", "/v1/orders", who=refused)
            assert (status, problem["reason"]) == (401, "TOKEN_INVALID")
            refresh = {"refresh_token": refused.tokens["refresh_token"]}
            status, problem, _ = await shop.raw("POST", "/v1/sessions/refresh", json=refresh)
            assert (status, problem["code"]) == (401, "UNAUTHENTICATED")
        admin = await shop.login(platform.admin_email, platform.admin_password)
        who = await shop.login(who.email, who.password)
        status, problem, _ = await shop.raw("GET", f"/v1/orders?cursor={cursor}", who=who)
        assert (status, problem["reason"]) == (400, "INVALID_CURSOR")
        _, _, now = await shop.raw("PATCH", path, who=admin, json={"name": "Of this life"})
        assert now["ETag"] != lost["ETag"]
        status, seen, _ = await shop.raw("GET", path, headers={"if-none-match": lost["ETag"]})
        assert (status, seen["name"]) == (200, "Of this life")
        changed, only_if = {"name": "Lost"}, {"if-match": lost["ETag"]}
        status, problem, _ = await shop.raw("PATCH", path, who=admin, json=changed, headers=only_if)
        assert (status, problem["reason"]) == (412, "VERSION_MISMATCH")
        kept = [order["id"] for order in await shop.all("/v1/orders", who)]
        assert set(before) <= set(kept), "what was acknowledged before the backup is in it"
        assert not set(after) & set(kept)
        await assert_it_adds_up(shop, who, admin, product, kept)
    assert await asyncio.to_thread(platform.stop) == 0, platform.output()
