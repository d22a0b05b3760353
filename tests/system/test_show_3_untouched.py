"""What to show, 3: whatever a container does to the image's files, the image's own layers stay as they are, byte for byte."""

from pathlib import Path

from cases import Lamina, fingerprint

DEEDS = {
    "append to a file": "echo more >> /files/plain",
    "write over a file, the same size": "printf 'PLAIN\\n' > /files/plain",
    "write through a hard link": "echo twin >> /files/twin",
    "write over a program that is running": "cp /bin/busybox /bin/other; mv /bin/other /bin/busybox",
    "truncate": ": > /test/deep/file",
    "delete a file": "rm /files/doomed",
    "delete a hard link": "rm /files/twin",
    "delete a tree": "rm -r /tree",
    "delete a tree and make another in its place": "rm -r /tree; mkdir /tree; echo new > /tree/a",
    "delete everything that can be": "rm -rf /files /test /tree /data /home /var",
    "rename a file": "mv /files/plain /files/renamed",
    "rename a file over another": "mv /files/plain /files/owned",
    "rename a directory": "mv /tree /wood",
    "exchange a file for a directory": "rm /files/plain; mkdir /files/plain; echo in > /files/plain/in",
    "exchange a directory for a file": "rm -r /tree; echo tree > /tree",
    "exchange a file for a symlink": "ln -sf /etc/passwd /files/plain",
    "hard link a file": "ln /files/plain /linked",
    "change the mode": "chmod 4711 /files/plain /tree",
    "change the owner": "chown 12:34 /files/plain /tree; chown -h 12:34 /files/link",
    "change the times": "touch -d '2001-02-03 04:05:06' /files/plain /tree",
    "write to a device and a pipe": "echo x > /files/device; (echo x > /files/pipe & cat /files/pipe > /dev/null; wait)",
    "read everything": "find / -xdev -type f -exec cat {} + > /dev/null",
    "add files everywhere": "for place in / /files /tree/sub /test/deep /data; do echo new > $place/added; done",
}
HARMLESS = {"read everything", "write to a device and a pipe"}
"""They change no file."""


def layers_of(lamina: Lamina, image: str) -> list[Path]:
    """What the driver keeps of the image's layers."""
    places = [place for key in lamina.layer_keys(image) for place in lamina.layer_dirs(key)]
    assert places
    return places


def test_whatever_a_container_does_the_images_layers_stay_as_they_are(lamina: Lamina):
    """Many deeds, a container for each; by the library, because they are many."""
    places = layers_of(lamina, "base")
    before = fingerprint(places)
    assert sum(1 for path in before if path.endswith("/files/noted")) in {1, 2, 3}
    with lamina.library() as engine:
        for deed, script in DEEDS.items():
            container = engine.containers.create("base", ["sh", "-e", "-c", script])
            assert container.start_attached() == 0, deed
            assert fingerprint(places) == before, f"ended: {deed}"
            assert container.diff() or deed in HARMLESS
            container.commit()
            container.start_attached()
            container.remove()
            assert fingerprint(places) == before, f"removed: {deed}"


def test_nothing_that_is_done_with_a_container_touches_the_images_layers(lamina: Lamina):
    places = layers_of(lamina, "base")
    before = fingerprint(places)
    container = lamina("run", "-d", "base", "sh", "-c", f"{'; '.join(DEEDS.values())} > /dev/null 2>&1; sleep 1000000 & wait")
    lamina("exec", container, "rm", "-rf", "/etc/passwd")
    for command in (("pause",), ("unpause",), ("commit",), ("stop", "-t", "0"), ("start",), ("diff",), ("rm", "-f")):
        lamina(*command, container)
        assert fingerprint(places) == before, f"after {command[0]}"


def test_the_deeds_are_done_in_the_container_and_another_sees_nothing_of_them(lamina: Lamina):
    deeds = "rm /files/doomed; mv /tree /wood; echo more >> /files/plain; chmod 600 /test/inside; ln /files/owned /linked"
    look = "cat /files/plain; ls -d /files/doomed /tree /wood /linked; stat -c %a /test/inside; stat -c %h /files/plain"
    done = lamina("run", "--rm", "base", "sh", "-c", f"{deeds}; {look} 2>/dev/null")
    assert done.splitlines()[:2] == ["plain", "more"]
    fresh = lamina("run", "--rm", "base", "sh", "-c", f"{look} 2>/dev/null")
    assert fresh.splitlines() == ["plain", "/files/doomed", "/tree", "644", "2"]
