"""Analysis: what is read off a Dataset of results, as another Dataset; no files, no figures."""
