"""No test's call goes through a proxy that the environment names: all that is called is on this machine."""

import os

for _name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)
