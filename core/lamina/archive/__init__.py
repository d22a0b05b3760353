"""Layers as tar streams: reading, writing, whiteouts, compression. Hostile input lives here."""
