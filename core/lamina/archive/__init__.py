"""Layers as tar streams: reading, writing, whiteouts, compression. Hostile input lives here.

compression.py   gzip, zstd and the rest, hashed and bounded as they stream; readahead.py is its thread
filerange.py     a part of a file as a stream
tarstream.py     tar of every dialect, member by member; tarheader.py and pax.py are its headers
layer.py         members understood as a layer's entries; paths.py normalises and refuses names
apply.py         entries laid down; target.py opens nothing outside, whiteouts.py knows the three formats
changes.py       what a layer changes, by comparing trees or reading an upper directory
writer.py        trees and changes written as tar
picked.py        chosen paths of a tree as entries, with no archive between
attributes.py    owners, modes, times and xattrs of files
extract.py       plain archives for cp; treereader.py reads a tree that somebody may be changing, shifted.py gives it other owners
treefacts.py     all that is to be the same of two trees; layermodel.py works it out of layers, for what lies on disk to be checked
upper.py         an upper directory of another engine as entries
fallback.py      core's own answers to hooks that a driver leaves out
"""
