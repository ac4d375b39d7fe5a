"""Gauges: what is told of the quotas of the models seen, when somebody collects the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from otel_bedrock import signals
from otel_bedrock.model_id import ModelId
from otel_bedrock.quota import DAY, MINUTE, Quota, burndown, limit_of, quota_of

Attributes = dict[str, Any]


class Quotas:
    """The models seen, with their burndown and their limits."""

    def __init__(self) -> None:
        self._burndowns: dict[ModelId, int] = {}
        self._limits: dict[tuple[ModelId, str | None], Mapping[str, int]] = {}
        self._asked: dict[tuple[ModelId, str | None], None] = {}
        self._told: dict[str | None, tuple[Quota, ...]] = {}
        # Who asks Service Quotas, where somebody does.
        self.asker: Any = None

    def see(
        self,
        model: ModelId,
        region: str | None,
        burndowns: Mapping[str, int] | None,
        limits: Mapping[str, Mapping[str, int]] | str | None,
    ) -> None:
        """Take a model that is new on metrics; the settings decide what is told of it."""
        factor = burndown(model, burndowns)
        if factor is None:
            self._burndowns.pop(model, None)
        else:
            self._burndowns[model] = factor
        if isinstance(limits, str):
            self._asked[model, region] = None
        elif limits is not None:
            found = limit_of(model, limits)
            if found is not None:
                self._limits[model, region] = found

    def knows(self, region: str | None) -> bool:
        """Say whether Service Quotas has told of `region`."""
        return region in self._told

    def learn(self, region: str | None, quotas: Iterable[Quota]) -> None:
        """Take what Service Quotas told of `region`."""
        self._told[region] = tuple(quotas)

    def observe_burndowns(self, _: CallbackOptions) -> Iterable[Observation]:
        """Observe the burndowns. Runs under the SDK's lock: it records nothing."""
        for model, factor in tuple(self._burndowns.items()):
            yield Observation(factor, _named(model))

    def observe_limits(self, _: CallbackOptions) -> Iterable[Observation]:
        """Observe the limits; likewise."""
        for (model, region), limits in tuple(self._limits.items()):
            yield from _observed(model, region, limits)
        for model, region in tuple(self._asked):
            quotas = self._told.get(region, ())
            found = {period: quota_of(model, period, quotas) for period in (MINUTE, DAY)}
            known = {period: limit for period, limit in found.items() if limit is not None}
            yield from _observed(model, region, known)


def _observed(
    model: ModelId, region: str | None, limits: Mapping[str, int]
) -> Iterable[Observation]:
    for period, limit in limits.items():
        attributes = {**_named(model), signals.PERIOD: period}
        if region is not None:
            attributes["cloud.region"] = region
        yield Observation(limit, attributes)


def _named(model: ModelId) -> Attributes:
    return {
        "gen_ai.provider.name": signals.PROVIDER_NAME,
        "gen_ai.request.model": model.name,
        "bedrock.model.base_id": model.base_id or "",
    }


# By meter provider: the SDK keeps the callbacks of the first instrument of a name, so that a
# Recorder that replaces another must go on where that one was.
_of: WeakKeyDictionary[metrics.MeterProvider, Quotas] = WeakKeyDictionary()
_of_global = Quotas()


def quotas_of(provider: metrics.MeterProvider | None) -> Quotas:
    """Return what is told by `provider`, None for the global one."""
    return _of_global if provider is None else _of.setdefault(provider, Quotas())
