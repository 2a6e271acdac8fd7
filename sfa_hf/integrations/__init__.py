"""SFA in other people's trainers: one file for each, imported where its package is installed."""
