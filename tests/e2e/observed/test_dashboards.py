"""Every query of the dashboards against a real Prometheus that has scraped the platform: data, and no error."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from observability.grafana.panels import CLUSTER_ONLY, DASHBOARDS
from tests.e2e.observed.stories import Story
from tests.e2e.platform import LocalPlatform

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed: apt-get install prometheus")
QUERIES = [
    pytest.param(query, id=f"{title}: {panel.title}, {legend}")
    for uid, (title, rows) in DASHBOARDS.items()
    if uid not in CLUSTER_ONLY
    for panels in rows.values()
    for panel in panels
    for legend, query in panel.queries.items()
]


class Prometheus:
    """The server at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query returns; raises HTTPError with the server's words for a query that is wrong."""
        url = f"{self._url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return result

    def await_data(self, expression: str, seconds: float = 30) -> list[dict[str, Any]]:
        """The same, once there is something."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = self.query(expression)
            except (urllib.error.URLError, ConnectionError) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code == 400:
                    raise
                found = []
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, platform: LocalPlatform, confirmed: Story, declined: Story
) -> Iterator[Prometheus]:
    assert PROMETHEUS is not None
    folder = tmp_path_factory.mktemp("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    targets = [part["url"].removeprefix("http://") for part in platform.state()["parts"].values()]
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": targets}]}],
    }
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config))
    arguments = [f"--config.file={file}", f"--storage.tsdb.path={folder}/data"]
    arguments += [f"--web.listen-address={address}", "--enable-feature=exemplar-storage"]
    with (folder / "out").open("wb") as out:
        server = subprocess.Popen([PROMETHEUS, *arguments], stdout=out, stderr=out)
    there = Prometheus(f"http://{address}")
    assert there.await_data(f"count(count_over_time(up[30s]) >= 3) == {len(targets)}"), (folder / "out").read_text()
    yield there
    server.terminate()
    server.wait(20)


@pytest.mark.parametrize("query", QUERIES)
def test_the_query_returns_data(prometheus: Prometheus, query: str) -> None:
    assert prometheus.await_data(query.replace("$__rate_interval", "30s"), seconds=5)


def test_every_part_answers_the_scrape(prometheus: Prometheus) -> None:
    found = prometheus.query("up")
    assert [sample["value"][1] for sample in found] == ["1"] * len(found)
