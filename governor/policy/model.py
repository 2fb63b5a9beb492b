"""What a policy can say. Times are ticks, factors are whole hundredths, shares ten-thousandths.

Fields are named as in the file, except where the file's word names the kind of rule (``cap`` is
`Cap.limit`, ``spacing`` is `Spacing.window`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from governor import taxonomy
from governor.policy import fields
from governor.policy.durations import DAY, MINUTE, SECOND
from governor.policy.mistakes import Mistake, shown
from governor.zones import Calendar

__all__ = [
    "EXAMPLE",
    "KINDS",
    "MAX_RULES",
    "Ad",
    "Attribution",
    "Cap",
    "Consent",
    "Controls",
    "Exclude",
    "Fatigue",
    "Holdout",
    "Ignored",
    "Lifecycle",
    "Policy",
    "QuietHours",
    "Reaction",
    "Rule",
    "Scoped",
    "Sensitive",
    "Spacing",
    "kind_of",
    "multiplied",
]

MAX_RULES: Final = 64
MAX_ITEMS: Final = 1000
"""The most ads items, quiet hours, excluded ids, and values of one match."""

EXAMPLE: Final = "- {name: user-daily, cap: 20, per: user, window: 1d}"

_TEN_YEARS: Final = 3660 * DAY
_Flag = Annotated[bool, BeforeValidator(fields.flag)]
_IdType = Annotated[str, BeforeValidator(fields.id_type)]
_Match = Mapping[str, tuple[str, ...]]
_Share = Annotated[int, BeforeValidator(fields.share), fields.AS_SHARE]
_Count = Annotated[Literal["rendered", "viewable"], fields.one_of(("rendered", "viewable"))]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# --- Rules -------------------------------------------------------------------------------------


class Scoped(_Strict):
    """What every rule says: its name, which label values it holds for, whose, and when."""

    name: Annotated[str, BeforeValidator(fields.name)]
    per: Annotated[tuple[str, ...], BeforeValidator(fields.dimensions), fields.AS_JOINED]
    id: _IdType = "user"
    where: Annotated[_Match, fields.match(lifecycle=True)] = Field(default={}, alias="match")
    shadow: _Flag = False

    @property
    def match(self) -> _Match:
        """Values by dimension, of which an ad must have one each."""
        return {key: values for key, values in self.where.items() if key != "lifecycle"}

    @property
    def lifecycle(self) -> tuple[str, ...]:
        """The states in which the rule holds; none: in all."""
        return self.where.get("lifecycle", ())

    @property
    def scope(self) -> tuple[object, ...]:
        """What two rules must share for one to make the other pointless."""
        return tuple(sorted(self.per)), self.id, tuple(sorted(self.where.items())), self.shadow


class Cap(Scoped):
    """At most ``limit`` exposures per label value in a look-back window or calendar period."""

    kind: ClassVar[Literal["cap"]] = "cap"

    limit: Annotated[int, BeforeValidator(fields.limit), Field(alias="cap")]
    rolling: Annotated[int | None, fields.between(MINUTE), fields.AS_DURATION] = Field(
        default=None, alias="window"
    )
    calendar: Annotated[Calendar | None, BeforeValidator(fields.period)] = None
    count: _Count = "rendered"

    @property
    def window(self) -> int:
        """How far back the rule looks: its window; of a calendar period, the longest it can be."""
        return self.rolling or fields.PERIODS[self.calendar or "month"]


class Spacing(Scoped):
    """At least ``window`` ticks between two exposures of one label value."""

    kind: ClassVar[Literal["spacing"]] = "spacing"
    limit: ClassVar[Literal[1]] = 1

    window: Annotated[int, fields.between(SECOND), fields.AS_DURATION, Field(alias="spacing")]
    count: _Count = "rendered"


class Reaction(Scoped):
    """After an engagement of a type, the label it answers rests for ``rest`` ticks."""

    kind: ClassVar[Literal["reaction"]] = "reaction"

    type: Annotated[str, BeforeValidator(fields.reaction_type), Field(alias="reaction")]
    rest: Annotated[int, fields.between(MINUTE), fields.AS_DURATION]


class Ignoring(_Strict):
    """How many measurable exposures in a row, each without an answer in time, are too many."""

    ignored: Annotated[int, fields.whole(1, fields.MAX_ROW_LIMIT)]
    within: Annotated[int, fields.between(MINUTE), fields.AS_DURATION] = DAY
    levels: Annotated[int, fields.whole(1, 16)] = 4


class Ignored(Scoped):
    """After every so many ignored exposures in a row a rest, twice as long at each level."""

    kind: ClassVar[Literal["ignored"]] = "ignored"

    reaction: Ignoring
    rest: Annotated[int, fields.between(MINUTE), fields.AS_DURATION]
    count: _Count = "rendered"

    @property
    def ignored(self) -> int:
        """Exposures in a row that lead to a rest."""
        return self.reaction.ignored

    @property
    def within(self) -> int:
        """How long after an exposure an engagement still answers it."""
        return self.reaction.within

    @property
    def levels(self) -> int:
        """The level from which on rests are no longer doubled."""
        return self.reaction.levels


class Tiring(_Strict):
    """When engagement has declined too far, and how sure that must be."""

    floor: Annotated[float, fields.probability("0", "1")] = 0.4
    probability: Annotated[float, fields.probability("0.5", "1")] = 0.9
    full: Annotated[float | None, fields.probability("0", "1")] = None
    """Up to it, from the floor on, ads are bid on at a share; none: there is no such share."""


class Fatigue(Scoped):
    """A rest when a person's expected engagement falls below a share of what it was at first."""

    kind: ClassVar[Literal["fatigue"]] = "fatigue"
    needed: ClassVar[int] = 16
    """The newest exposures of a label value that a row keeps for it, however crowded it is."""

    fatigue: Tiring
    count: _Count = "rendered"

    @property
    def floor(self) -> float:
        """Engagement relative to the first exposure, below which a person is tired."""
        return self.fatigue.floor

    @property
    def probability(self) -> float:
        """How probable it must be that engagement is below the floor."""
        return self.fatigue.probability

    @property
    def full(self) -> float | None:
        """Engagement relative to the first exposure, from which on nothing is held back."""
        return self.fatigue.full


KINDS: Final[Mapping[str, type[Scoped]]] = {
    "cap": Cap,
    "spacing": Spacing,
    "reaction": Reaction,
    "ignored": Ignored,
    "fatigue": Fatigue,
}


def kind_of(value: object) -> str:
    """Which kind of rule a mapping is meant to be."""
    if not isinstance(value, Mapping):
        return str(getattr(value, "kind", "cap"))
    kind = next(
        (each for each in ("cap", "spacing", "reaction", "fatigue") if each in value), "cap"
    )
    return "ignored" if isinstance(value.get(kind), Mapping) and kind == "reaction" else kind


Rule = Annotated[
    Annotated[Cap, Tag("cap")]
    | Annotated[Spacing, Tag("spacing")]
    | Annotated[Reaction, Tag("reaction")]
    | Annotated[Ignored, Tag("ignored")]
    | Annotated[Fatigue, Tag("fatigue")],
    Discriminator(kind_of),
]


def _rules(value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)} is not a list: write one rule a line, each after a '-'")
    if not value:
        raise ValueError(f"has no rule: write at least one, such as {EXAMPLE}")
    if len(value) > MAX_RULES:
        raise ValueError(f"has {len(value)} rules: write at most {MAX_RULES}")
    return tuple(value)


# --- Modifiers ---------------------------------------------------------------------------------


class Ad(_Strict):
    """What holds of the ads that match; of several that match, weights multiply."""

    match: Annotated[_Match, fields.match(lifecycle=False)]
    weight: Annotated[int, fields.hundredths("0.01", "1000"), fields.AS_FACTOR] = 100
    """How much one exposure counts, in hundredths."""
    measurable: _Flag = True
    """Whether an engagement could be seen at all."""
    priority: Annotated[Literal["always"] | None, fields.one_of(("always",))] = None
    """``always``: such exposures count for nothing, and nothing holds such ads back."""


class Attribution(_Strict):
    """How long after an exposure an engagement still answers it, for some types and some ads."""

    window: Annotated[int, fields.between(MINUTE), fields.AS_DURATION]
    type: Annotated[
        tuple[Annotated[str, BeforeValidator(fields.reaction_type)], ...],
        fields.some("[click, visit]", MAX_ITEMS),
    ] = ()
    """Types of engagement that it is about; none: all."""
    match: Annotated[_Match, fields.match(lifecycle=False)] = {}
    """Of the exposure's labels."""


class Sensitive(_Strict):
    """Categories of which less is enough."""

    categories: Annotated[
        tuple[Annotated[str, fields.category(taxonomy.family, taxonomy.nearest)], ...],
        fields.some("[Alcoholic Beverages]", MAX_ITEMS),
    ]
    multiplier: Annotated[int, fields.hundredths("1", "100"), fields.AS_FACTOR] = 200
    """By how much exposures count for more and rests are longer, in hundredths."""

    def covers(self, category: str) -> bool:
        """Whether an ad's category, an id or a name in any case, is one of these or below one."""
        return any(
            category in family or category.casefold() in family
            for family in map(taxonomy.family, self.categories)
            if family is not None
        )


class QuietHours(_Strict):
    """Hours of the day, in each reader's zone, in which ads that match are not shown."""

    name: Annotated[str, BeforeValidator(fields.name)]
    start: Annotated[int, BeforeValidator(fields.clock), fields.AS_CLOCK] = Field(alias="from")
    """Minutes since midnight; after ``end`` where the hours pass midnight."""
    end: Annotated[int, BeforeValidator(fields.clock), fields.AS_CLOCK] = Field(alias="to")
    match: Annotated[_Match, fields.match(lifecycle=False)] = {}


class Lifecycle(_Strict):
    """How long an engagement and a conversion make somebody more than a prospect."""

    engaged: Annotated[int, fields.between(MINUTE), fields.AS_DURATION] = 30 * DAY
    customer: Annotated[int, fields.between(MINUTE), fields.AS_DURATION] = 180 * DAY


class Holdout(_Strict):
    """Shares of people, of 10,000, by a hash of salt and id that never changes."""

    share: _Share = 0
    """On whom soft rules do not act."""
    ungoverned: _Share = 0
    """On whom no rule acts, only people's own controls."""
    salt: Annotated[str, fields.text("'2026'")] = "governor"
    id: _IdType = "user"


class Exclude(_Strict):
    """Ids of tests and invalid traffic: their events are not taken in."""

    ids: Annotated[
        tuple[Annotated[str, fields.text("u7")], ...], fields.some("[u7, u8]", MAX_ITEMS)
    ] = ()
    prefixes: Annotated[
        tuple[Annotated[str, fields.text("test-")], ...], fields.some('["test-"]', MAX_ITEMS)
    ] = ()

    def covers(self, value: str) -> bool:
        """Whether events of this id are not taken in."""
        return value in self.ids or value.startswith(self.prefixes or "\0")


class Controls(_Strict):
    """How long what a person asked for lasts."""

    less_often: Annotated[
        int, fields.between(MINUTE, _TEN_YEARS, history=False), fields.AS_DURATION
    ] = 90 * DAY
    hide: Annotated[int, fields.between(MINUTE, _TEN_YEARS, history=False), fields.AS_DURATION] = (
        90 * DAY
    )


class Consent(_Strict):
    """What counts as consent to retargeting."""

    required: _Flag = False
    """Whether a person of whom nothing is known counts as having refused."""
    vendor: Annotated[int | None, fields.whole(1, 65_535)] = None
    """Our id on the TCF's Global Vendor List; none: a vendor's own consent is not asked for."""
    purposes: Annotated[
        tuple[Annotated[int, fields.whole(1, 24)], ...], fields.some("[1, 3, 4]", 24)
    ] = (1, 3, 4)
    """TCF purposes that must all be consented to."""


# --- The whole ---------------------------------------------------------------------------------


class Policy(_Strict):
    """All that governs, rules in the order of the file, and the version that decisions name."""

    rules: Annotated[tuple[Rule, ...], BeforeValidator(_rules)]
    timezone: Annotated[str, BeforeValidator(fields.time_zone)] = "UTC"
    """For calendar periods and quiet hours, where the row knows no zone."""
    shadow: _Flag = False
    """Every rule is only reported."""
    ads: Annotated[tuple[Ad, ...], fields.some("[{match: ..., weight: 2}]", MAX_ITEMS)] = ()
    sensitive: Annotated[Sensitive | None, BeforeValidator(fields.present)] = None
    quiet_hours: Annotated[
        tuple[QuietHours, ...],
        fields.some("[{name: night, from: '22:00', to: '07:00'}]", MAX_ITEMS),
    ] = ()
    lifecycle: Lifecycle = Lifecycle()
    attribution: Annotated[
        tuple[Attribution, ...], fields.some("[{type: click, window: 1h}]", MAX_ITEMS)
    ] = ()
    """The first that fits an engagement and an exposure holds; where none does, a day."""
    holdout: Holdout = Holdout()
    exclude: Exclude = Exclude()
    controls: Controls = Controls()
    consent: Consent = Consent()
    version: Annotated[str, BeforeValidator(fields.version)] = Field(
        default_factory=lambda said: _digest(said)
    )
    _warnings: tuple[Mistake, ...] = ()

    @property
    def warnings(self) -> tuple[Mistake, ...]:
        """What is allowed and probably not meant."""
        return self._warnings

    def warned(self, warnings: Iterable[Mistake]) -> Policy:
        """The same policy, with these warnings."""
        other = self.model_copy()
        object.__setattr__(other, "_warnings", tuple(sorted(set(warnings))))
        return other

    def canonical(self) -> str:
        """The policy without its version, in its one spelling: JSON, which `load` reads as YAML."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"version"})

    def for_readers(self) -> dict[str, Any]:
        """What those who obey must know besides the decisions, as JSON takes it.

        ``ids``: the types of id whose decisions a reader looks up; ``always``: labels of ads that
        nothing holds back; ``quiet_hours``: when to show nothing, in the person's own zone.
        """
        return {
            "policy": self.version,
            "timezone": self.timezone,
            "ids": list(dict.fromkeys(rule.id for rule in self.rules)),
            "always": [
                {key: list(values) for key, values in ad.match.items()}
                for ad in self.ads
                if ad.priority == "always"
            ],
            "quiet_hours": [
                hours.model_dump(mode="json", by_alias=True, exclude_defaults=True)
                for hours in self.quiet_hours
            ],
        }


def multiplied(factors: Iterable[int]) -> int:
    """The product of factors in hundredths, to the nearest hundredth (halves up), 1 to 100,000."""
    product, scale = 100, 1
    for factor in factors:
        product *= factor
        scale *= 100
    return min(max((2 * product + scale) // (2 * scale), 1), 100_000)


def _digest(said: Mapping[str, Any]) -> str:
    unnamed = Policy.model_construct(None, **{**said, "version": ""})
    return hashlib.sha256(unnamed.canonical().encode()).hexdigest()[:12]
