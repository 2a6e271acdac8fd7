"""Where values are kept: one store a file, by the name that ``anchor_device`` gives it."""
