"""The commands, one module each, imported when named. Each has `command`, a click command."""
