"""One module for each kind of scoring.

``ask`` runs the model over the rows, on all processes together, and returns one answer a row on each of them;
``judge`` turns rows and answers into a score and records, without the model.
"""
