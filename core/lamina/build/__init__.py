"""Building images: a Dockerfile, a context, and a cache keyed by content.
"""
