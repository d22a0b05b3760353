"""The probes, a module for each subject. Each one's function either runs in the container or is given the lab."""
