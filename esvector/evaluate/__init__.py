"""Knowing how good a search is: against judgements, against exact search, and what to change."""
