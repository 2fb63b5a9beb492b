"""Policy: the rules that say when a person has seen enough, read from YAML.

`load` reports every mistake of a file at once, each with its line and what to write instead.
"""

from governor.policy.checks import looks_back
from governor.policy.durations import duration, written
from governor.policy.fields import DIMENSIONS, ID_TYPE_NAMES, MAX_ROW_LIMIT, is_other_id_type
from governor.policy.loading import default_text, load
from governor.policy.mistakes import Mistake, PolicyError
from governor.policy.model import (
    Ad,
    Attribution,
    Cap,
    Consent,
    Controls,
    Exclude,
    Fatigue,
    Holdout,
    Ignored,
    Lifecycle,
    Policy,
    QuietHours,
    Reaction,
    Rule,
    Sensitive,
    Spacing,
    multiplied,
)
from governor.policy.reading import MAX_BYTES

__all__ = [
    "DIMENSIONS",
    "ID_TYPE_NAMES",
    "MAX_BYTES",
    "MAX_ROW_LIMIT",
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
    "Mistake",
    "Policy",
    "PolicyError",
    "QuietHours",
    "Reaction",
    "Rule",
    "Sensitive",
    "Spacing",
    "default_text",
    "duration",
    "is_other_id_type",
    "load",
    "looks_back",
    "multiplied",
    "written",
]
