"""SFA itself: which steps merge, what a merge does, and a training loop of one's own."""
