"""`make demo`: runs a customer's stories against the running platform; exits with 1 if a result is unexpected."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from knative.local.data import Data
from knative.local.demo.shop import Refused, Shop
from knative.local.demo.stories import STORIES, Off, Visit, adds_up, expect, money

DATA = Path(__file__).parents[3] / ".data"


def where(environ: Mapping[str, str], data: Data) -> str:
    """Return the gateway's URL: SHOP_URL, or that of the platform in `data`, whose port may not be the default."""
    return environ.get("SHOP_URL") or str(data.running().get("base_url", "http://127.0.0.1:8080"))


def main() -> int:
    """Run the demo; return the exit code: 0 if every story ended as expected, 1 if not, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--url", default=where(os.environ, Data(DATA)), help="the gateway")
    parser.add_argument("--host", default="", help="Host header, for an ingress reached by its address")
    options = parser.parse_args()
    console = Console(highlight=False)
    try:
        asyncio.run(_demo(console, Shop(options.url, options.host)))
    except (Off, Refused, TimeoutError) as error:
        console.print(f"[red]Off:[/red] {error}")
        return 1
    except (OSError, aiohttp.ClientError):
        console.print(f"[red]Nobody answers at {options.url}.[/red] Start the platform first: make up")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _demo(console: Console, shop: Shop) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    async with shop:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("Coming in", total=len(STORIES) + 2)
            visit = await _come_in(console, shop)
            for number, (title, story) in enumerate(STORIES.items(), 1):
                progress.update(task, advance=1, description=title)
                console.print(f"\n[bold]{number}. {title}[/bold]")
                await story(visit)
            progress.update(task, advance=1, description="Adding up")
            stock, captured, refunded = await adds_up(visit)
            progress.advance(task)
    currency = visit.orders[0]["total"]["currency"]
    console.print("\n[bold]It adds up[/bold]")
    console.print(
        f"  stock  {visit.before['on_hand']} before, 2 sold, {stock['on_hand']} now, {stock['reserved']} reserved"
    )
    amounts = [money({"amount": n, "currency": currency}) for n in (captured, refunded, captured - refunded)]
    console.print(
        f"  money  {amounts[0]} charged, {amounts[1]} refunded, {amounts[2]} kept for the one order that stands"
    )
    console.print(f"\n[green]All {len(STORIES)} stories ended as they should.[/green]")


async def _come_in(console: Console, shop: Shop) -> Visit:
    def say(line: str) -> None:
        console.print(f"   {line}")

    console.print("[bold]Coming in[/bold]")
    person = await shop.register()
    say(f"registered and logged in as {person.email}")
    products = await shop.all("/v1/products")
    expect(bool(products), "a catalogue with products in it (make up loads one into an empty store)")
    say(f"browsed {len(products)} products: " + ", ".join(sorted({p["category"] for p in products})))
    for product in products:
        stock = await shop.stock(product["id"])
        if stock["available"] >= 5:
            say(f"picked {product['name']}, {money(product['price'])}, {stock['available']} in stock")
            return Visit(shop, say, person, product, stock)
    raise Off("expected a product of which there are five")


if __name__ == "__main__":
    sys.exit(main())
