"""Making concept sentences: mined from texts, written by a model or behind an endpoint."""
