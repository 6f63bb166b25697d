"""What holds for all tests: no call goes through a proxy of the environment, and a slow machine is no failure."""

import os

from hypothesis import settings

settings.register_profile("shop", deadline=None)
settings.load_profile("shop")

for _name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)
