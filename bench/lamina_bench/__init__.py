"""The benchmark: Lamina and what other engines are present, in turn on the same work; not shipped, and no test.

__main__.py     the command line: `make bench`
catalogue.py    every work and its targets, one readable list; begin here
work.py         what a work, a contender and a target are
works/          how each engine does each work
rounds.py       takes turns: warm-up, A B C, B C A, …
measure.py      one command: wall clock and processor time, of a daemon's part too
lab.py          a place for one run of the benchmark, and what is made there once: engines, images, a registry
disk.py         a disk of its own, where the machine's has no journal
engines.py      how each engine is called, given an image, and left as it was found
samples.py      the images and trees that are worked on, the same everywhere
library.py      a Python process that works through `lamina.engine`, called by works
machine.py      what the figures were measured on, and whether it was quiet
report.py       figures become medians, spreads, ratios and verdicts: arithmetic alone
table.py        the report as text and as Markdown
document.py     the report as JSON
chart.py        the report as a plot, SVG written by hand
"""
