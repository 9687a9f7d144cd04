"""Encoding: profiles, models, the engine."""
