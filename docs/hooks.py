"""Hooks of mkdocs, which serve mermaid from the site itself."""

from pathlib import Path
from typing import Any

MERMAID = Path(__file__).parents[1] / ".tools/node/node_modules/@mermaid-js/tiny/dist/mermaid.tiny.js"


def on_config(config: Any) -> Any:
    """Load mermaid only if Node's tools are installed; otherwise the pages show the source of the diagrams."""
    if not MERMAID.exists():
        config.extra_javascript.clear()
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add mermaid's script to the site."""
    from mkdocs.structure.files import File

    if MERMAID.exists():
        files.append(File.generated(config, "assets/mermaid.js", abs_src_path=str(MERMAID)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Show diagrams as text if mermaid is not installed."""
    if not MERMAID.exists():
        markdown = markdown.replace("```mermaid", "```text")
    return markdown
