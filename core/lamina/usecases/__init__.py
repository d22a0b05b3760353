"""The use cases: what `lamina.engine.Engine` offers, one file to a subject.

context.py    what every use case works with: the stores, the plugin host, the paths
create.py     a container from an image: its layer, its volumes, its record
start.py      mounting, launching, and settling what has ended
control.py    stop, kill, wait, pause, rename, remove, top
enter.py      exec and attach
content.py    diff, commit, export
volumes.py    named and anonymous volumes
recovery.py   undoing what killed commands left half made
"""
