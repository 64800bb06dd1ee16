"""Analyses: a Dataset of results in, a Dataset of what a figure says out."""
