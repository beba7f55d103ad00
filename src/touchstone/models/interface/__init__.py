"""Interfacial area of bulk-heterojunction films, from their morphology and their history."""
