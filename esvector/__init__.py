"""Semantic search on Elasticsearch with your own open model, on your own GPU."""
