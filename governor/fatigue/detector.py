"""Notices that a label gets fewer answers than usual: an e-SR detector a label.

Shiryaev-Roberts with e-values (Shin, Ramdas and Rinaldo 2024, "E-detectors"). The outcomes of one
bucket of event time multiply to a likelihood ratio L of Bernoulli(rho p0) to Bernoulli(p0); with n
exposures in the bucket, R <- (n + R) L, for each rho, and the mean over rho is compared with A.

**What is promised, and on what condition.** Without a decline, R minus the exposures so far is a
supermartingale, so the exposures until a false alarm are at least A on average, *provided that* p0
of every bucket is at most the true conditional rate. (The number of exposures in a bucket must not
depend on their outcomes.) So p0 is a lower confidence bound of what past buckets lead to expect,
normal wear included: an alarm means worse than usual. The past ends `Settings.lag` exposures ago,
or where a decline is suspected to have begun, so that a decline does not become what is usual.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

__all__ = ["RATIOS", "Alarm", "Detector", "Observed", "Settings", "detect"]

RATIOS: Final = (0.5, 0.65, 0.8)
"""The declines that are looked for, as what is left of the rate."""

_Z95: Final = 1.959963984540054
_MOST_RECENT: Final = 256
"""Recent buckets kept apart; beyond it neighbours are added up."""


@dataclass(frozen=True)
class Settings:
    """How a detector judges.

    Attributes:
        threshold: A, the promised mean number of exposures until a false alarm.
        lag: exposures that must have passed before a bucket is part of the past.
        least: engagements that the past must have before anything is judged.
        caution: standard errors by which p0 lies below what the past leads to expect.
        memory: expected engagements after which the past's weight halves.
        recovery: evidence at which a decline is over.
    """

    threshold: float = 1e6
    lag: int = 5_000
    least: float = 200.0
    caution: float = 2.0
    memory: float = 10_000.0
    recovery: float = 1e3


@dataclass(frozen=True)
class Observed:
    """What one bucket of event time brought for a label, once it is settled.

    Attributes:
        start, end: of the bucket, ticks.
        exposures: measurable ones.
        engagements: of these.
        expected: what the curve led to expect of them: the sum of base f E[theta | past].
    """

    start: int
    end: int
    exposures: int
    engagements: int
    expected: float


@dataclass(frozen=True)
class Alarm:
    """A label's rate has declined, or has come back.

    Attributes:
        ts: when it was noticed: end of the bucket, ticks.
        since: the likeliest time at which the decline began: start of a bucket, ticks.
        ratio: what is left of the usual rate since then.
        low, high: its 95% interval.
        evidence: R over A at the alarm (at least 1).
        recovered: the rate is what it was again; the other fields are those of the decline.
    """

    ts: int
    since: int
    ratio: float
    low: float
    high: float
    evidence: float
    recovered: bool = False


@dataclass
class Detector:
    """One label's detector. Buckets must be given in order of time, each once.

    Attributes:
        settings: how it judges.
        evidence: R of each of `RATIOS`.
        sums: of each of `RATIOS`, the CUSUM whose last zero dates a decline.
        since: of each of `RATIOS`, that zero: start of a bucket, ticks.
        past: engagements, expected ones and exposures of the past, discounted.
        dispersion: squared residuals of buckets and how many there are, discounted.
        recent: buckets that are not yet part of the past.
        alarm: the decline that holds at present.
        comeback: evidence that it is over.
    """

    settings: Settings = Settings()
    evidence: list[float] = field(default_factory=lambda: [0.0] * len(RATIOS))
    sums: list[float] = field(default_factory=lambda: [0.0] * len(RATIOS))
    since: list[int] = field(default_factory=lambda: [0] * len(RATIOS))
    past: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    dispersion: list[float] = field(default_factory=lambda: [0.0, 0.0])
    recent: list[Observed] = field(default_factory=list)
    alarm: Alarm | None = None
    comeback: float = 0.0

    def update(self, observed: Observed) -> Alarm | None:
        """Take one bucket in; the alarm that this bucket raises or ends, if it does."""
        if observed.exposures <= 0 or observed.expected <= 0.0:
            return None
        usual = self.usual()
        self._keep(observed)
        if usual is None:
            self._learn()
            return None
        p0 = min(0.5, usual * observed.expected / observed.exposures)
        if self.alarm is not None:
            return self._look_for_recovery(observed, p0)
        self._weigh(observed, p0)
        mean = sum(self.evidence) / len(RATIOS)
        if mean < self.settings.threshold:
            self._learn()
            return None
        self.alarm = self._describe(observed, mean)
        self.comeback = 0.0
        return self.alarm

    def usual(self) -> float | None:
        """The lower bound of engagements over expected ones, by the past; None if it is short."""
        engagements, expected, _ = self.past
        if engagements < self.settings.least or expected <= 0.0:
            return None
        squares, count = self.dispersion
        spread = max(1.0, squares / count) if count > 30.0 else 1.5
        error = math.sqrt(spread / engagements)
        return engagements / expected * max(0.5, 1.0 - self.settings.caution * error)

    def _weigh(self, observed: Observed, p0: float) -> None:
        for i, ratio in enumerate(RATIOS):
            gain = _log_likelihood_ratio(observed, ratio * p0, p0)
            self.evidence[i] = (observed.exposures + self.evidence[i]) * math.exp(min(gain, 500.0))
            self.evidence[i] = min(self.evidence[i], 1e200)
            if self.sums[i] <= 0.0:
                self.since[i] = observed.start
            self.sums[i] = max(0.0, self.sums[i] + gain)

    def _keep(self, observed: Observed) -> None:
        self.recent.append(observed)
        if len(self.recent) > _MOST_RECENT:
            pairs = zip(self.recent[0:-1:2], self.recent[1::2], strict=False)
            rest = self.recent[-1:] if len(self.recent) % 2 else []
            self.recent = [_added(a, b) for a, b in pairs] + rest

    def _learn(self) -> None:
        """Move buckets into the past that are older than the lag and than any suspicion."""
        suspected = [at for at, total in zip(self.since, self.sums, strict=True) if total > 0.0]
        until = min(suspected, default=math.inf)
        newer = sum(each.exposures for each in self.recent)
        moved = 0
        for each in self.recent:
            newer -= each.exposures
            if newer < self.settings.lag or each.end > until:
                break
            self._remember(each)
            moved += 1
        del self.recent[:moved]

    def _remember(self, observed: Observed) -> None:
        engagements, expected, exposures = self.past
        if expected > 0.0 and engagements > 0.0:
            mean = engagements / expected * observed.expected
            fade = 0.5 ** (1.0 / 1000.0)
            residual = (observed.engagements - mean) ** 2 / mean
            self.dispersion = [
                self.dispersion[0] * fade + min(residual, 25.0),
                self.dispersion[1] * fade + 1.0,
            ]
        keep = 0.5 ** (observed.engagements / self.settings.memory)
        self.past = [
            engagements * keep + observed.engagements,
            expected * keep + observed.expected,
            exposures * keep + observed.exposures,
        ]

    def _describe(self, observed: Observed, evidence: float) -> Alarm:
        best = max(range(len(RATIOS)), key=lambda i: self.evidence[i])
        since = self.since[best]
        after = [each for each in self.recent if each.end > since]
        engagements = sum(each.engagements for each in after)
        usual = self.past[0] / self.past[1] * sum(each.expected for each in after)
        low, high = _poisson_interval(engagements)
        return Alarm(
            observed.end,
            since,
            engagements / usual,
            low / usual,
            high / usual,
            evidence / self.settings.threshold,
        )

    def _look_for_recovery(self, observed: Observed, p0: float) -> Alarm | None:
        alarm = self.alarm
        if alarm is None:
            return None
        declined = min(0.9, alarm.high) * p0
        gain = _log_likelihood_ratio(observed, p0, declined)
        grown = (observed.exposures + self.comeback) * math.exp(min(gain, 500.0))
        self.comeback = min(grown, 1e200)
        if self.comeback < self.settings.recovery * observed.exposures:
            return None
        self.alarm = None
        self.evidence = [0.0] * len(RATIOS)
        self.sums = [0.0] * len(RATIOS)
        # What came during the decline is not usual.
        self.recent = [observed]
        return replace(alarm, ts=observed.end, recovered=True)

    def to_fields(self) -> dict[str, Any]:
        """The state as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Detector:
        """The detector that `to_fields` told of."""
        alarm = fields["alarm"]
        return cls(
            **(
                fields
                | {
                    "settings": Settings(**fields["settings"]),
                    "recent": [Observed(**each) for each in fields["recent"]],
                    "alarm": None if alarm is None else Alarm(**alarm),
                }
            )
        )


def detect(buckets: Iterable[Observed], settings: Settings | None = None) -> Sequence[Alarm]:
    """All alarms of a label's buckets, in order."""
    detector = Detector(settings or Settings())
    found = (detector.update(each) for each in buckets)
    return [alarm for alarm in found if alarm is not None]


def _log_likelihood_ratio(observed: Observed, p1: float, p0: float) -> float:
    misses = observed.exposures - observed.engagements
    return observed.engagements * math.log(p1 / p0) + misses * (math.log1p(-p1) - math.log1p(-p0))


def _added(a: Observed, b: Observed) -> Observed:
    return Observed(
        a.start,
        b.end,
        a.exposures + b.exposures,
        a.engagements + b.engagements,
        a.expected + b.expected,
    )


def _poisson_interval(count: int) -> tuple[float, float]:
    """The 95% interval of a Poisson mean (Wilson and Hilferty 1931)."""
    low = 0.0
    if count > 0:
        low = count * (1.0 - 1.0 / (9.0 * count) - _Z95 / (3.0 * math.sqrt(count))) ** 3
    more = count + 1.0
    high = more * (1.0 - 1.0 / (9.0 * more) + _Z95 / (3.0 * math.sqrt(more))) ** 3
    return max(0.0, low), high
