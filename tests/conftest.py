"""Puts this folder on the import path, so that tests in every folder share its helpers."""
