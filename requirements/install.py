"""Install a hash-locked requirements file for the running interpreter, and show the progress.

Uses only the standard library, because it runs before anything else is installed.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

NAME = re.compile(r"^(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9_.-]+)==")


def main(requirements: Path) -> int:
    total = len(re.findall(r"^[A-Za-z0-9_.-]+==", requirements.read_text(), re.MULTILINE))
    started = time.monotonic()
    show(f"Installing {total} packages from {requirements} (once; about two minutes on a fresh machine)")
    pip = subprocess.Popen(
        [sys.executable, "-m", "pip", "install", "--require-hashes", "--no-deps", "--progress-bar=off",
         "--disable-pip-version-check", "--no-input", "-r", str(requirements)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    tail = follow(pip, total)
    if pip.wait() != 0:
        show("Installing failed. The last words of pip:\n  " + "\n  ".join(tail))
        return 1
    show(f"Installed in {time.monotonic() - started:.0f} s")
    return 0


def follow(pip: "subprocess.Popen[str]", total: int) -> list[str]:
    """Show one step for each package that pip reports; return pip's last lines, to show them if pip fails."""
    seen = 0
    tail: list[str] = []
    for line in pip.stdout or ():
        tail = [*tail[-14:], line.rstrip()]
        if match := NAME.match(line):
            seen += 1
            progress(f"  {seen:3}/{total} {match[1]}", step=seen)
        elif line.startswith("Installing collected packages"):
            progress("  unpacking", step=0)
    if sys.stdout.isatty():
        sys.stdout.write("\r\x1b[K")
    return tail


def progress(text: str, step: int) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\x1b[K{text}")
        sys.stdout.flush()
    elif step % 20 == 0:
        show(text)


def show(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
