"""Fatigue: declining engagement, told apart from who is asked and from who answers anyway.

`exposures` is what is observed; `frailty` estimates `curves` from it; `response` says what one
person's next exposure is expected to give; `detector` notices that a label does worse than usual.
"""
