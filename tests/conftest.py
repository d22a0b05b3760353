"""What holds for every test: nothing is pulled unless a test says so, from a registry that it has started itself; and a container
has no network unless a test gives it one, so that the machine's own links and rules stay as they are."""

import os

from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine takes its time, which is no fault of what is tested
settings.load_profile("untimed")
os.environ["LAMINA_PULL"] = "never"
os.environ["LAMINA_NETWORK"] = "none"
