"""What `lamina driver new` writes: the files of a driver's package with `{{…}}` where its names go. No code; see `cli/commands`."""
