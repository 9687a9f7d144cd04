"""Indexing: sources, the pipeline, the one writer, versions behind an alias."""
