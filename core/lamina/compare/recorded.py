"""Records of file systems that hardly a machine has any more, packed in as data: `data/*.json`, one file a record.

A record names the driver that it stands beside, and says for each probe the answer in the probe's own words, with the operation
by which it was observed.
"""

from importlib.resources import files

from lamina import json
from lamina.compare.report import Recorded


def records() -> list[Recorded]:
    """Read every record, by name."""
    found = []
    for file in sorted(files("lamina.compare").joinpath("data").iterdir(), key=lambda each: each.name):
        if file.name.endswith(".json"):
            document = json.loads(file.read_text(encoding="utf-8"))
            found.append(
                Recorded(
                    name=document["name"],
                    beside=document["beside"],
                    title=document["title"],
                    answers={name: told["answer"] for name, told in document["answers"].items()},
                    operations={name: told["operation"] for name, told in document["answers"].items()},
                )
            )
    return found
