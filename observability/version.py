"""The release of the platform: a copy of the version in pyproject.toml, because images do not contain that file."""

VERSION = "0.1.0"
