"""The report of a replay or a simulation: one HTML file, and the same in words.

`plots` draws, `sentences` says what the figures mean and what to do next, `page` puts both
together. All of it is made of `governor.replay.tallying.Findings`.
"""
