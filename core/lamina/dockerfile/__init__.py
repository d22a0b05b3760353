"""The Dockerfile language: text in, values out. Nothing here touches files or runs anything (`lamina.build` does).

instructions.py  the values: every instruction, and the parts they share
errors.py        what is wrong, with file, line and instruction
"""
