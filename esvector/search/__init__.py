"""Searching: filters, requests, the searcher."""
