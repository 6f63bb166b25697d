"""What databases that run on this machine share."""

from __future__ import annotations


class NotAvailable(Exception):
    """A database cannot run on this machine. The message says why."""
