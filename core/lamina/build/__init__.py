"""Building images: a Dockerfile, a context, and a cache keyed by content.

builder.py      a build from request to image: the rest comes together here
request.py      what a person asks for
session.py      what all stages of a build share; images that they stand on
graph.py        which stages are needed, and what they name
scheduler.py    stages side by side, in one thread
stage.py        one stage, from FROM to its last instruction
state.py        what a stage has come to: layers, configuration, history
variables.py    ARG and ENV: what an instruction sees
settings.py     the instructions that change no file
cache.py        what a step came to, by all that it depends on; prune.py empties it
layers.py       layers made, unpacked, and written to
run.py          RUN's process; mounts.py prepares RUN --mount, steps.py is what the process does for it
tree.py         WORKDIR's directories
context.py      the files that a build is given
copying.py      COPY and ADD: what is copied, and its digest
                selection.py and sources.py find it, contenthash.py reads it, layout.py and copylayer.py lay it out,
                filemode.py and ownership.py say its modes and owners, unpacking.py, download.py and gitclone.py are ADD's
outputs.py      --output: what was built as a directory or an archive
progress.py     what a build tells; progress_plain.py and progress_live.py show it, excerpt.py shows what failed
"""
