"""Service Quotas: the limits of an account, asked once for each Region, in the background.

Only where the setting `quota_limits` is `service-quotas`; needs the IAM action
servicequotas:ListServiceQuotas. A call never waits: the first one of a Region starts a thread that
asks with its client's credentials, untraced. What failed is asked again after FAILED_FOR seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_bedrock import shield
from otel_bedrock.control_plane import NotYet, make_client, make_session
from otel_bedrock.quota import Quota

if TYPE_CHECKING:
    from otel_bedrock.gauges import Quotas

SERVICE = "bedrock"
FAILED_FOR = 600.0
# Credentials of an asyncio client are there once its first call has been signed.
_SOON = 1.0

_clock = time.monotonic


def see(quotas: Quotas, client: Any) -> None:
    """Take the client of a call, whose Region may not have been asked for yet."""
    asker = quotas.asker
    if asker is None or asker.process != os.getpid():
        # What the parent of a fork asked for may never be answered here.
        asker = quotas.asker = Asker(quotas)
    asker.see(client)


class Asker:
    """Asks for one Region after the other, and hands over what it is told."""

    def __init__(self, quotas: Quotas) -> None:
        self.process = os.getpid()
        self._quotas = quotas
        self._again: dict[str | None, float] = {}
        self._lock = threading.Lock()
        self._said = False

    def see(self, client: Any) -> None:
        """Ask for the client's Region, unless that was done."""
        region = client.meta.region_name
        if self._again.get(region, 0.0) > _clock():
            return
        with self._lock:
            if self._again.get(region, 0.0) > _clock():
                return
            # Until it has answered, nobody else asks.
            self._again[region] = float("inf")
        if self._quotas.knows(region):
            return
        threading.Thread(
            target=self._ask, args=(client, region), name="otel-bedrock-quotas", daemon=True
        ).start()

    def _ask(self, client: Any, region: str | None) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        pause = FAILED_FOR
        try:
            with suppress_instrumentation():
                self._quotas.learn(region, list(list_quotas(client)))
            return
        except NotYet:
            pause = _SOON
        except (BotoCoreError, ClientError) as error:
            self._say(error)
        except Exception as error:
            shield.stop("service_quotas", error)
        self._again[region] = _clock() + pause

    def _say(self, error: Exception) -> None:
        if self._said:
            return
        self._said = True
        told = getattr(error, "response", {}).get("Error", {})
        # Not the error's own text: it names the account and the role.
        shield.log.warning(
            "quotas are not known: ListServiceQuotas failed (%s). Allow the IAM action"
            " servicequotas:ListServiceQuotas, or give the limits in quota_limits. It is asked"
            " again after %d minutes; this is said once.",
            told.get("Code") or type(error).__name__,
            FAILED_FOR / 60,
        )


def list_quotas(client: Any) -> Iterator[Quota]:
    """List the Bedrock quotas of the account and Region of `client`, as Service Quotas tells them.

    Raises:
        BotoCoreError, ClientError: it does not; `servicequotas:ListServiceQuotas` allows it.
    """
    asking = make_client(make_session(), client, service="service-quotas")
    try:
        for page in asking.get_paginator("list_service_quotas").paginate(ServiceCode=SERVICE):
            for quota in page.get("Quotas", ()):
                name, value = quota.get("QuotaName"), quota.get("Value")
                if isinstance(name, str) and isinstance(value, (int, float)):
                    yield Quota(name, int(value))
    finally:
        asking.close()
