"""Files that survive a crash, tensors read by slice, and the Hub."""
