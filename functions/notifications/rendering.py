"""Rendering of messages from templates/. Each template has `subject.txt` and `body.txt`; all share `layout.html`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from events.catalog import Money
from functions.runtime.currencies import exponent

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "templates"
TEMPLATES = frozenset(
    {
        "welcome",
        "order_confirmed",
        "order_cancelled",
        "order_shipped",
        "order_delivered",
        "payment_refunded",
        "stock_low",
        "password_reset",
        "email_verification",
        "already_registered",
        "email_change",
        "email_changed",
        "password_changed",
    }
)
TOKEN_PURPOSES = {
    "password_reset": "PASSWORD_RESET",
    "email_verification": "EMAIL_VERIFICATION",
    "already_registered": "REGISTRATION",
    "email_change": "EMAIL_CHANGE",
    "email_changed": "EMAIL_UNDO",
}
"""The purpose of the token that a mail carries, by template. Tokens in mails are not stored."""

SECURITY_TEMPLATES = frozenset({*TOKEN_PURPOSES, "password_changed"})
"""Templates that cannot be muted, so that an attacker who took over an account cannot mute them either. The users
service limits their number."""

ADMIN_TEMPLATES = frozenset({"stock_low"})
"""Templates of messages to every administrator."""


def subject(template: str, params: dict[str, str]) -> str:
    """Return the subject as one line."""
    return " ".join(_render(template, "subject.txt", params).split())


def body(template: str, params: dict[str, str], name: str = "", token: str = "") -> str:
    """Return the text of a message, with a greeting by `name` if it is given.

    Without `token`, the text says that the token is in the e-mail.
    """
    known = {**params, "name": " ".join(name.split()), "token": token}
    return _render(template, "body.txt", known) + "\n"


def html(subject_line: str, text: str) -> str:
    """Return the HTML part of a mail, which has the same words as `text` in a layout for screens of any width.

    An empty line separates paragraphs of the text. An indented paragraph is a code.
    """
    blocks = [block if block.startswith("    ") else block.strip() for block in text.split("\n\n")]
    return _environment().get_template("layout.html").render(subject=subject_line, blocks=blocks)


def amount(money: Money) -> str:
    """Format an amount as `1,234.50 EUR`: major units with the currency's number of decimals, and its code."""
    digits = exponent(money.currency)
    whole, part = divmod(money.amount, 10**digits)
    decimals = f".{part:0{digits}}" if digits else ""
    return f"{whole:,}{decimals} {money.currency}"


def _render(template: str, file: str, params: dict[str, str]) -> str:
    return _environment().get_template(f"{template}/{file}").render(params)


@cache
def _environment() -> Environment:
    """Return the Jinja environment. It is sandboxed, and strict so that a missing parameter is an error."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(
        loader=FileSystemLoader(FOLDER),
        # Escape only HTML, because plain text would show HTML entities literally.
        autoescape=lambda name: name is not None and name.endswith(".html"),
        trim_blocks=False,
        undefined=StrictUndefined,
    )
