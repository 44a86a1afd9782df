"""Tests of the Python package, for `python -m unittest discover` and for pytest alike.

Time is manual, by `manual_time`, except in files that say at the top that theirs is real.
"""
