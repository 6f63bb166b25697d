"""Creation of AWS clients."""

from __future__ import annotations

import os
from typing import Any

from observability.proxies import proxy_for


def make_client(service: str, region: str | None, endpoint: str | None, **config: Any) -> Any:
    """Create boto3's client of `service`. This blocks, and takes 0.3 s of CPU including the imports.

    Credentials come from boto3's provider chain; in a pod that is the role of its service account. A region or
    endpoint that is None comes from the same chain. `config` has the arguments of botocore's Config. An endpoint
    inside the platform is called without the environment's proxies.
    """
    # botocore is sufficient. Importing boto3, which adds a resource layer, would add 0.08 s to a cold start.
    from botocore.config import Config
    from botocore.session import get_session

    from functions.runtime.aws_models import LeanLoader

    session = get_session()
    session.register_component("data_loader", LeanLoader())
    # Pods have AWS_REGION, which boto3 does not read. An endpoint of our own needs no region, but boto3 requires one.
    if endpoint and proxy_for(endpoint) is None:
        config["proxies"] = {}  # only calls to AWS itself use the proxies
    region = region or os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return session.create_client(
        service,
        region_name=region or ("us-east-1" if endpoint else None),
        endpoint_url=endpoint,
        config=Config(**config),
    )
