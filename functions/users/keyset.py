"""The keys of access tokens: one signs, the next is published ahead of its turn, the last still verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from functions.runtime.errors import exhausted

KEY_SET_ID = "signing"
ACCESS_LIFE = timedelta(minutes=15)
KEY_LIFE = timedelta(days=30)
# How long a process may go on signing with the key that it knows, before it looks again.
SIGNER_CACHE = timedelta(seconds=30)
# Until the last token of a retired key has expired everywhere: its life, a stale signer, and clocks that
# differ.
VERIFIES_ON = ACCESS_LIFE + SIGNER_CACHE + timedelta(seconds=90)
MAX_RETIRED = 8
# Until every verifier has read a key that was published: they read anew every 25 seconds.
KNOWN_AFTER = timedelta(minutes=1)


@dataclass
class SigningKey:
    """An Ed25519 key pair: `kid` its name in tokens, `public` and `private` its raw bytes in base64url."""

    kid: str
    public: str
    private: str = field(repr=False)
    signs_since: datetime | None = None
    verifies_until: datetime | None = None


@dataclass
class KeySet:
    """All keys of access tokens, in one entity, so that every process agrees on which one signs."""

    id: str
    current: SigningKey
    upcoming: SigningKey
    retired: list[SigningKey] = field(default_factory=list)
    # Of the store: after a restore all keys are new, so that access tokens of the life before are refused.
    epoch: int = 0
    version: int = 0

    @staticmethod
    def first(current: SigningKey, upcoming: SigningKey, now: datetime, epoch: int = 0) -> KeySet:
        """The set of a platform that starts for the first time, or for the first time after a restore."""
        current.signs_since = now
        return KeySet(KEY_SET_ID, current, upcoming, epoch=epoch)

    def is_due(self, now: datetime) -> bool:
        """The current key has signed for 30 days."""
        return self.current.signs_since is None or now - self.current.signs_since >= KEY_LIFE

    def rotate(self, fresh: SigningKey, now: datetime) -> None:
        """The upcoming key signs from now on, `fresh` is published for the next time.

        The private half of the retired key is forgotten at once. Raises RESOURCE_EXHAUSTED (TOO_MANY_ROTATIONS)
        within a minute of the last time, when not every verifier knows the upcoming key yet, and when eight retired
        keys still verify: each makes every verifier's key set longer.
        """
        self.prune(now)
        free = now
        if self.retired and self.current.signs_since is not None:
            free = self.current.signs_since + KNOWN_AFTER
        if len(self.retired) >= MAX_RETIRED:
            free = min(key.verifies_until or now for key in self.retired)
        if free > now:
            wait = (free - now).total_seconds()
            raise exhausted("TOO_MANY_ROTATIONS", "The keys were rotated too often.", max(wait, 1.0))
        self.current.private = ""
        self.current.verifies_until = now + VERIFIES_ON
        self.retired.append(self.current)
        self.current, self.upcoming = self.upcoming, fresh
        self.current.signs_since = now

    def prune(self, now: datetime) -> bool:
        """Forget retired keys of which no token lives any more; whether there were any."""
        living = [key for key in self.retired if _verifies(key, now)]
        found = len(living) < len(self.retired)
        self.retired = living
        return found

    def published(self, now: datetime) -> Sequence[SigningKey]:
        """What verifiers should know: the upcoming key too, so that its first token finds it there."""
        return [self.current, self.upcoming, *(key for key in self.retired if _verifies(key, now))]


def _verifies(key: SigningKey, now: datetime) -> bool:
    return key.verifies_until is None or key.verifies_until > now
