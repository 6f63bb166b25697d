"""Find subscribers of Knative's in-memory channels whose Subscription or Trigger no longer exists, and remove them.

`python -m knative.subscribers [--namespace shop] [--remove]` (`make check-triggers`) asks the cluster with kubectl.
Knative removes a subscriber by a merge patch of the whole list, computed from a cached copy. When many Triggers are
deleted at once, some of these patches overwrite each other. The channel then still sends each event to subscribers
whose Trigger no longer exists.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

Manifest = Mapping[str, Any]

_CHANNEL: Final = "inmemorychannels.messaging.knative.dev"
_SUBSCRIPTION: Final = "subscriptions.messaging.knative.dev"
_TRIGGER: Final = "triggers.eventing.knative.dev"


class Stale(NamedTuple):
    """A subscriber that must be removed: the channel, the index in the channel's list, the uid and the address."""

    channel: str
    place: int
    uid: str
    address: str


def stale(
    channels: Iterable[Manifest], subscriptions: Iterable[Manifest], triggers: Iterable[Manifest]
) -> Iterator[Stale]:
    """Yield each subscriber whose Subscription, or whose Subscription's Trigger, no longer exists."""
    alive = {trigger["metadata"]["uid"] for trigger in triggers}
    known = {subscription["metadata"]["uid"] for subscription in subscriptions if _owners(subscription) <= alive}
    for channel in channels:
        for index, subscriber in enumerate(channel["spec"].get("subscribers") or ()):
            if subscriber["uid"] not in known:
                name, address = channel["metadata"]["name"], subscriber.get("subscriberUri", "")
                yield Stale(name, index, subscriber["uid"], address)


def _owners(subscription: Manifest) -> set[str]:
    """Return the uids of the Triggers that own a Subscription; empty if it was created by hand."""
    references = subscription["metadata"].get("ownerReferences") or ()
    return {reference["uid"] for reference in references if reference["kind"] == "Trigger"}


def removal(found: Iterable[Stale]) -> str:
    """Return the JSON patch that removes these subscribers of one channel, unless the list has changed meanwhile."""
    patch = []
    for subscriber in sorted(
        found, key=lambda each: -each.place
    ):  # from the end, so that no removal shifts a later one
        place = f"/spec/subscribers/{subscriber.place}"
        patch += [{"op": "test", "path": f"{place}/uid", "value": subscriber.uid}, {"op": "remove", "path": place}]
    return json.dumps(patch)


def _kubectl(*arguments: str) -> str:
    command = ["kubectl", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603 - the user's own


def main() -> int:
    """Print the stale subscribers. Return 1 if there are some that were not removed, 2 if kubectl failed."""
    parser = argparse.ArgumentParser(
        prog="python -m knative.subscribers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--namespace", default="shop")
    parser.add_argument("--remove", action="store_true", help="remove them from their channels")
    given = parser.parse_args()
    where = ("-n", given.namespace)
    try:
        kinds = [
            json.loads(_kubectl("get", kind, *where, "-o", "json"))["items"]
            for kind in (_CHANNEL, _SUBSCRIPTION, _TRIGGER)
        ]
        found = list(stale(*kinds))
        for channel in {each.channel for each in found} if given.remove else ():
            patch = removal(each for each in found if each.channel == channel)
            _kubectl("patch", _CHANNEL, channel, *where, "--type=json", f"--patch={patch}")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"kubectl: {error}\n")
        return 2
    for each in found:
        sys.stdout.write(
            f"{each.channel}: {each.address} ({each.uid}) has no Trigger{' and was removed' if given.remove else ''}\n"
        )
    sys.stdout.write(f"{len(found)} subscribers without a Trigger\n")
    return 1 if found and not given.remove else 0


if __name__ == "__main__":
    sys.exit(main())
