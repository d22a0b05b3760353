"""Lamina: a container engine whose storage drivers, networks and volumes are plugins."""

__version__ = "0.1.0"
