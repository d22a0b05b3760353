"""What holds for every test: nothing is pulled unless a test says so, from a registry that it has started itself."""

import os

os.environ["LAMINA_PULL"] = "never"
