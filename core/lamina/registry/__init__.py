"""Images on their way: to and from registries, archives, directories and other engines.

transport.py  what a place is that images come from and go to, and how a place is written
"""
