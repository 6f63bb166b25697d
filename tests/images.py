"""What goes into each image, by its Dockerfile and .dockerignore, without building it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from docker.utils.build import exclude_paths

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile's instructions, in order, with continued lines joined and ${arguments} filled in."""

    instructions: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str, **arguments: str) -> Dockerfile:
        """From its text, and the build arguments."""
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        joined = "\n".join(lines).replace("\\\n", " ")
        for name, value in arguments.items():
            joined = joined.replace("${" + name + "}", value)
        pairs = (line.strip().partition(" ") for line in joined.splitlines())
        return cls(tuple((name.upper(), rest.strip()) for name, _, rest in pairs))

    def all(self, name: str) -> list[str]:
        """The operands of each instruction of this name."""
        return [rest for found, rest in self.instructions if found == name]

    def final(self) -> Dockerfile:
        """The last stage alone."""
        start = max(at for at, (name, _) in enumerate(self.instructions) if name == "FROM")
        return Dockerfile(self.instructions[start:])

    def entry_point(self) -> list[str]:
        """The process that is started; empty where a shell would start it, which keeps signals to itself."""
        try:
            words: list[str] = json.loads(self.all("ENTRYPOINT")[-1])
        except (IndexError, ValueError):
            return []
        return words

    def sources(self) -> list[str]:
        """What of the repository is copied into any stage."""
        copied = [operands for operands in self.all("COPY") if not operands.startswith("--from")]
        return [source for operands in copied for source in operands.split()[:-1]]

    def files(self) -> set[str]:
        """The repository's files that are copied into any stage, requirements aside."""
        sources = [source for source in self.sources() if not source.startswith("requirements/")]
        return {path for path in context() if any(_matches(path, source) for source in sources)}

    def faults(self) -> list[str]:
        """What every image of ours keeps to, and this one does not."""
        final = self.final()
        users = final.all("USER")
        stages = {match[1] for base in self.all("FROM") if (match := re.search(r" AS (\S+)$", base))}
        bases = {base.partition(" ")[0] for base in self.all("FROM")} - stages
        # As the first layer, all images share it.
        first = next((rest for name, rest in final.instructions[1:2] if name == "RUN"), "")
        installs = [command for command in self.all("RUN") if " install " in command]
        faults = {
            "runs as root": not users or not re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", users[-1]),
            "is not stopped by SIGTERM": final.all("STOPSIGNAL") != ["SIGTERM"],
            "is started by a shell": not final.entry_point(),
            "has another base": bases != {"${PYTHON_IMAGE}"},
            "installs what is not locked": not all(
                flag in command
                for command in installs
                for flag in ("--require-hashes", "--only-binary=:all:", "--no-deps")
            ),
            "installs into the last stage": any(" install " in command for command in final.all("RUN")),
            "adds what may come from anywhere": bool(self.all("ADD")),
            "keeps what changes its identity": "-perm /6000 -exec chmod ug-s" not in first,
            "keeps what installs packages": "rm -rf /usr/bin/apt* /usr/bin/dpkg*" not in first,
        }
        return [fault for fault, is_so in faults.items() if is_so]


@cache
def context() -> frozenset[str]:
    """The files that a build is given: paths from the repository's root, as .dockerignore leaves them."""
    patterns = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.strip() and not line.startswith("#")
    ]
    return frozenset(
        path for path in exclude_paths(str(ROOT), patterns) if path != ".dockerignore" and (ROOT / path).is_file()
    )


def _matches(path: str, source: str) -> bool:
    if "*" in source:
        return fnmatchcase(path, source) and path.count("/") == source.count("/")
    return path == source or path.startswith(f"{source.rstrip('/')}/")
