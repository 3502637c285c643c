"""Losses, mixing and pseudo-labels: functions that objectives share."""
