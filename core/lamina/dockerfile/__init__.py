"""The Dockerfile language: text in, values out. Nothing here touches files or runs anything (`lamina.build` does).

instructions.py  the values: every instruction, the parts they share, and what of them is expanded
errors.py        what is wrong, with file, line and instruction
parse.py         a file, or one instruction, from its text: what others call
lines.py         bytes to instructions' lines: directives, comments, continuation lines, heredocs' lines
commands.py      one function for each instruction
flags.py         --NAME=VALUE behind an instruction's word
mounts.py        RUN --mount
heredocs.py      where <<NAME stands
words.py         blanks, quoted words, JSON lists, the nearest word to a misspelt one
ports.py         what EXPOSE names
lint.py          warnings
effects.py       what an instruction does to an image's defaults
expand.py        variables, quotes and escapes: what others call
patterns.py      the patterns of ${NAME#PATTERN}
ignore.py        .dockerignore: what others call
globs.py         patterns of files
"""
