"""Theta_o, the weights at the start of a task: taken, saved, the same at a resume, averaged with."""
