"""The release of the platform, as pyproject.toml has it, which is in no image."""

VERSION = "0.1.0"
