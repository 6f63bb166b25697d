"""Where the demo looks for its platform."""

from pathlib import Path

from knative.local.data import Data
from knative.local.demo.__main__ import where


def test_the_demo_finds_the_platform_that_runs_here_on_whatever_ports(tmp_path: Path) -> None:
    data = Data(tmp_path)
    assert where({}, data) == "http://127.0.0.1:8080"
    data.publish({"base_url": "http://127.0.0.1:8180"})
    assert where({}, data) == "http://127.0.0.1:8180"
    assert where({"SHOP_URL": "http://shop.test"}, data) == "http://shop.test"
