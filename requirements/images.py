"""`python -m requirements.images BUILDER [ROOT]`: pin third-party images to the digests that their tags have now.

BUILDER is docker, podman or buildah; it pulls each image and reports its digest. References keep their tags:
`name:tag@sha256:...`. To change to another version, change the tag, delete the digest and run this again.
"""

import re
import subprocess
import sys
from pathlib import Path

_IMAGE = re.compile(
    r"(?P<before>(?:^\s+(?:- )?image: |^ARG PYTHON_IMAGE=))(?P<image>[a-z0-9][\w./-]*:[\w.-]+)(?=\s*$)", re.MULTILINE
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def files(root: Path) -> list[Path]:
    """Return the files for production that may refer to third-party images."""
    dockerfiles = [path for path in root.glob("*/**/Dockerfile") if not path.relative_to(root).parts[0].startswith(".")]
    return [root / "compose.yaml", *sorted(root.glob("observability/cluster/*.yaml")), *sorted(dockerfiles)]


def digest(builder: str, image: str) -> str:
    """Pull an image and return its digest.

    Docker reports the digest of the image for all architectures. Podman and buildah may report that of the image for
    this machine's architecture.

    Raises:
        LookupError: the builder reports no digest.
        CalledProcessError: the builder failed, for example to pull the image.
    """
    subprocess.run([builder, "pull", image], stdout=subprocess.DEVNULL, check=True)
    if Path(builder).name == "buildah":
        asked = ["inspect", "--type", "image", "--format", "{{.FromImageDigest}}", image]
    else:
        asked = ["image", "inspect", "--format", "{{range .RepoDigests}}{{println .}}{{end}}", image]
    said = subprocess.run([builder, *asked], capture_output=True, text=True, check=True).stdout
    found = _DIGEST.search(said)
    if found is None:
        raise LookupError(f"{builder} knows no digest of {image}")
    return found[0]


def pin(builder: str, root: Path) -> list[str]:
    """Pin all images that have no digest yet; return the new references."""
    texts = {path: path.read_text() for path in files(root)}
    images = sorted({found["image"] for text in texts.values() for found in _IMAGE.finditer(text)})
    pinned = {image: f"{image}@{digest(builder, image)}" for image in images}
    for path, text in texts.items():
        path.write_text(_IMAGE.sub(lambda found: found["before"] + pinned[found["image"]], text))
    return list(pinned.values())


if __name__ == "__main__":
    try:
        print(*pin(sys.argv[1], Path(*sys.argv[2:3])), sep="\n")
    except (LookupError, subprocess.CalledProcessError) as error:
        sys.exit(f"Nothing was pinned: {error}")
