"""`bench timing`: speed as ratios, each measured against its baseline in one run on one machine.

A group of measurements is one function in a module of this package; `measurements.MEASUREMENTS` is the table.
"""
