"""Battles of StarCraft II units: SMAC's maps and SMACv2's rosters."""
