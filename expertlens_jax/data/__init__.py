"""Concept sentences and human ratings, and what each concept is told apart from."""
