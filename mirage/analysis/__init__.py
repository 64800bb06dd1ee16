"""Analysis: a Dataset of results in, a Dataset of what follows from them out."""
