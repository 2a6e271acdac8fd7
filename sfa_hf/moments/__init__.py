"""Adam's second moments as weights of a merge."""
