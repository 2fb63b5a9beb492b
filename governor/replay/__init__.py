"""What a policy would have done to a log of events, and what the log says about fatigue.

`log` puts events in order, `linking` finds what engagements answer, `replaying` leads them past a
ledger, `tallying` counts what came of it.
"""
