"""What goes into a Trainer's callbacks=[...]."""
