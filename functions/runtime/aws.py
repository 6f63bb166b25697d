"""Clients of AWS: what all of ours have in common."""

from __future__ import annotations

import os
from typing import Any

from observability.proxies import proxy_for


def make_client(service: str, region: str | None, endpoint: str | None, **config: Any) -> Any:
    """boto3's own client of `service`; blocking, and slow to make (0.3 s of CPU with the imports).

    Credentials are those of boto3's chain: in a pod, its service account's role. So are region and endpoint that are
    None. `config` is botocore's Config. An endpoint inside the platform is called past the environment's proxies.
    """
    # botocore is boto3 without its resource layer, whose import alone costs a cold start 0.08 s.
    from botocore.config import Config
    from botocore.session import get_session

    from functions.runtime.aws_models import LeanLoader

    session = get_session()
    session.register_component("data_loader", LeanLoader())
    # AWS_REGION is what pods are given, and boto3 does not read it. An endpoint of one's own needs none, yet boto3
    # wants one.
    if endpoint and proxy_for(endpoint) is None:
        config["proxies"] = {}  # boto3 would go by the environment; AWS itself is reached through its proxies
    region = region or os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return session.create_client(
        service,
        region_name=region or ("us-east-1" if endpoint else None),
        endpoint_url=endpoint,
        config=Config(**config),
    )
