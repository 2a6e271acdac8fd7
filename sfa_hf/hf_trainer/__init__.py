"""Additions to the Hugging Face Trainer that callbacks need."""
