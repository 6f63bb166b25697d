"""`make drill`: destroy a platform while orders flow, restore a backup, and check that nothing older is lost or wrong.

Orders flow, a backup is taken, they flow on, and everything is destroyed. RPO is what was acknowledged after the backup
and is missing; RTO is the time from the destruction to the first order that is placed and confirmed afterwards. Without
--overlay the platform is a private one of this machine, otherwise the one of KUBECONFIG, E2E_BASE_URL and E2E_HOST.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from knative.local.demo.shop import Person, Shop
from tests.chaos.orders import Flow
from tests.drill.sites import ClusterSite, MachineSite, Site

_LETTER_SECONDS = 60.0
_RETURN_SECONDS = 1800.0


def main() -> int:
    """Return 0 if nothing that was acknowledged before the backup is lost, and nothing is wrong."""
    parser = argparse.ArgumentParser(prog="make drill", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite", help="of the machine's platform")
    parser.add_argument("--overlay", type=Path, help="of the cluster's platform, with a PostgreSQL of its own")
    parser.add_argument("--seconds", type=float, default=20.0, help="of orders, before and after the backup each")
    parser.add_argument("--rate", type=float, default=4.0, help="orders a second")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--settle", type=float, default=1200.0, help="seconds within which all must be final")
    options = parser.parse_args()
    missing = [name for name in ("KUBECONFIG", "E2E_BASE_URL", "E2E_HOST") if not os.environ.get(name)]
    if options.overlay and missing:
        parser.error(f"set {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="shop-drill-") as name:
        folder = Path(name)
        site = ClusterSite(folder, options.overlay) if options.overlay else MachineSite(folder, options.store)
        violations, facts = asyncio.run(_drill(site, options))
    print(json.dumps(facts, indent=2))
    for violation in violations:
        print(violation, file=sys.stderr)
    print(
        f"RPO {facts['rpo_seconds']} s ({facts['missing']} of {facts['acknowledged_after_backup']} orders acknowledged "
        f"after the backup are missing), RTO {facts['rto_seconds']} s, {len(violations)} lost or wrong"
    )
    return 1 if violations else 0


async def _drill(site: Site, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    await asyncio.to_thread(site.start)
    try:
        async with Shop(*site.address, connections=200) as shop:
            flow = Flow(shop, site.admin)
            await flow.begin()
            letters = await _letter(site, shop)
            flowing = asyncio.create_task(flow.run(options.workers, options.rate))
            await _flowed(flowing, options.seconds)
            began = time.monotonic()
            await asyncio.to_thread(site.backup)
            took = time.monotonic() - began
            _say(f"a backup of {took:.1f} s, with {len(flow.placed)} orders")
            await _flowed(flowing, options.seconds)
            flowing.cancel()
            with suppress(asyncio.CancelledError):
                await flowing
        acknowledged = [order.at for order in flow.placed]
        destroyed = time.monotonic()
        await asyncio.to_thread(site.destroy)
        _say(f"destroyed, with {len(acknowledged)} orders")
        await asyncio.to_thread(site.restore)
        async with Shop(*site.address, connections=200) as shop:
            flow.shop = shop
            confirmed = await flow.probe(_RETURN_SECONDS)
            back = time.monotonic() - destroyed
            _say(f"an order is confirmed after {back:.1f} s")
            found = [] if confirmed else ["no order was confirmed after the restore"]
            there = await _dead_letters(shop, await shop.login(*site.admin))
            found += [f"dead letter {letter} is lost" for letter in sorted(letters - there)]
            missing = await flow.forget(began)
            oldest = min((order.at for order in missing), default=destroyed)
            violations, facts = await flow.violations(options.settle)
    finally:
        await asyncio.to_thread(site.stop)
    return found + violations, {
        "acknowledged_before_backup": sum(at <= began for at in acknowledged),
        "acknowledged_after_backup": sum(at > began for at in acknowledged),
        "missing": len(missing),
        "rpo_seconds": round(destroyed - oldest, 1),
        "rto_seconds": round(back, 1),
        "backup_seconds": round(took, 1),
        **facts,
    }


async def _flowed(flowing: asyncio.Task[None], seconds: float) -> None:
    """Let orders flow for `seconds`. Raises what stopped them, if anything did."""
    done, _ = await asyncio.wait([flowing], timeout=seconds)
    for task in done:
        task.result()


async def _letter(site: Site, shop: Shop) -> set[str]:
    """Publish an event without a signature, which no service accepts; return the dead letters once it is among them."""
    event_id = uuid4().hex
    attributes = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-source": "/shop/products",
        "ce-type": "shop.product.stock.low.v1",
        "ce-subject": "drill",
        "content-type": "application/json",
    }
    admin = await shop.login(*site.admin)
    before, deadline = await _dead_letters(shop, admin), time.monotonic() + _LETTER_SECONDS
    await asyncio.to_thread(site.publish, attributes)
    while (letters := await _dead_letters(shop, admin)) == before:
        if time.monotonic() > deadline:
            raise TimeoutError("an event without a signature has not become a dead letter")
        await asyncio.sleep(0.5)
    return letters


async def _dead_letters(shop: Shop, admin: Person) -> set[str]:
    return {letter["id"] for letter in await shop.all("/v1/admin/dead-letters?status=pending", admin)}


def _say(what: str) -> None:
    print(f"  {time.strftime('%T')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
