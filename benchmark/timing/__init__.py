"""`bench timing`: speed as ratios, each measured against its baseline in one run on one machine.

A measurement is one function in `engines`, `data`, `learners` or `startup`; `measurements.MEASUREMENTS` is the table.
"""
