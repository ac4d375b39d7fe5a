"""Control plane: a client of service `bedrock` that is to AWS who a calling client is.

For questions in the background: short timeouts, no retries. AWS_ENDPOINT_URL_BEDROCK and the
other settings of the environment hold as for any client.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import Any

_CONNECT_TIMEOUT, _READ_TIMEOUT = 2.0, 5.0

# What of the calling client's Config decides how AWS is reached.
_OPTIONS = (
    "proxies",
    "proxies_config",
    "client_cert",
    "use_fips_endpoint",
    "use_dualstack_endpoint",
)


class NotYet(Exception):
    """The calling client has no credentials so far."""


def make_session() -> Any:
    """Make a session for `make_client`: the first client of it costs a fifth of a second."""
    import botocore.session

    return botocore.session.Session()


def make_client(session: Any, client: Any, service: str = "bedrock") -> Any:
    """Make a client of the control plane, or of another service, with what `client` has:
    its credentials, Region and proxies.

    Raises:
        NotYet: an asyncio client that has not signed its first call.
    """
    from botocore import UNSIGNED
    from botocore.config import Config

    theirs = client.meta.config
    options = {name: getattr(theirs, name, None) for name in _OPTIONS}
    if theirs.signature_version is UNSIGNED:
        options["signature_version"] = UNSIGNED
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"total_max_attempts": 1},
        **{name: value for name, value in options.items() if value is not None},
    )
    return session.create_client(
        service,
        region_name=client.meta.region_name,
        config=config,
        **_keys(client._get_credentials()),
    )


def _keys(credentials: Any) -> dict[str, str | None]:
    """Return `credentials` as arguments of create_client.

    {} where there are none: such a client has a bearer token of the environment, which
    botocore finds again, or signs nothing.
    """
    if credentials is None:
        return {}
    if iscoroutinefunction(credentials.get_frozen_credentials):
        # aiobotocore's: a refresh belongs to their own event loop; what the last one gave is
        # there.
        frozen = getattr(credentials, "_frozen_credentials", credentials)
        if frozen is None:
            raise NotYet
    else:
        frozen = credentials.get_frozen_credentials()
    return {
        "aws_access_key_id": frozen.access_key,
        "aws_secret_access_key": frozen.secret_key,
        "aws_session_token": frozen.token,
    }
