"""People with known fatigue, recovery, propensity and activity, and worlds of them.

`people` says how a person answers; `worlds` what is shown to whom, with the truth kept apart from
the event log.
"""
