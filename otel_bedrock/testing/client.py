"""A boto3 client that talks to one URL and to nothing else, whatever the environment says."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

# Where botocore would look for settings of the user's: nowhere.
_NOWHERE: dict[str, tuple[None, None, Any, None]] = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
    "ca_bundle": (None, None, None, None),
}
_DEFAULTS: dict[str, Any] = {
    "retries": {"total_max_attempts": 1, "mode": "standard"},
    # An empty dict, not None: None would ask the environment.
    "proxies": {},
    # Else AWS_BEARER_TOKEN_BEDROCK changes how requests are signed.
    "signature_version": "v4",
    "defaults_mode": "legacy",
    "ignore_configured_endpoint_urls": True,
    "max_pool_connections": 64,
}


@cache
def _loader() -> Any:
    """One loader for all clients: parsing the service's description is most of a client's cost."""
    import botocore.loaders

    return botocore.loaders.create_loader()


def make_client(url: str, service: str, config: dict[str, Any]) -> Any:
    """`config` goes to botocore's Config, over defaults that allow no retries."""
    # Imported here: the server itself needs neither.
    import boto3
    import botocore.session
    from botocore.config import Config

    core = botocore.session.Session(session_vars=_NOWHERE)
    loader = _loader()
    core.register_component("data_loader", loader)
    session = boto3.Session(botocore_session=core, region_name="us-east-1")
    # Each boto3 session adds its own folder to the loader's list.
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)
    # The stubs know a hundred literal names here, and no str.
    create: Any = session.client
    return create(
        service,
        endpoint_url=url,
        aws_access_key_id="AKIAFAKEFAKEFAKEFAKE",
        aws_secret_access_key="fake",  # noqa: S106 - that is the point
        config=Config(**{**_DEFAULTS, **config}),
    )
