"""Metric modules for the ``evaluate`` library, one a folder, loaded from here by path and offline.

The library's scanner reads a module's imports line by line: one import a line there.
"""
