"""A process becomes a container."""
