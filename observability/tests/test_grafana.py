"""The committed dashboards."""

from observability.grafana import generate


def test_the_committed_dashboards_are_what_make_dashboards_would_write() -> None:
    committed = {file.name: file.read_text() for file in generate.FOLDER.glob("*.json")}
    assert committed == generate.rendered()
