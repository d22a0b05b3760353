"""The images and trees that are worked on: made here from a fixed seed, so that they are the same everywhere but for this
machine's busybox.

busybox     busybox and its links, 2 MB
files-100   the same with 100 files of 1 KiB more, files-8000 with 8,000
big         the same with 8,000 files of 240 MB in all; gzip makes about half of them
deep        400 layers of one small file each, on busybox
"""

import io
import json
import os
import random
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from lamina_bench.work import AbsentError

MTIME = 1_700_000_000
BIG_FILES, BIG_BYTES = 8000, 240_000_000
DEEP_LAYERS = 400


class Samples:
    """Makes sample images, each once, as files below a directory."""

    def __init__(self, directory: str) -> None:
        self._dir = Path(directory)
        self._dir.mkdir()

    def archive(self, name: str, called: str) -> str:
        """An archive as `docker save` writes it, plain; the image in it is called `called`."""
        path = self._dir / f"{name}.tar"
        if not path.exists():
            write_docker_archive(path, called, self._layers(name))
        return str(path)

    def big_layout(self) -> str:
        """The image `big`, tagged `latest` in an OCI layout with one layer by gzip (level 6, as most tools pack)."""
        place = self._dir / "big-layout"
        if not place.exists():
            layer = self._big_layer()
            packed = self._dir / "big-layer.gz"
            digest = _gzip(layer, packed)
            _write_layout(place, packed, digest, _file_digest(layer))
            layer.unlink()
        return str(place)

    def big_docker_archive(self, called: str) -> str:
        """The same in the form of `docker save`, its layer the same gzip. All engines read it so."""
        path = self._dir / "big-docker.tar"
        if not path.exists():
            place = Path(self.big_layout())
            blobs = place / "blobs/sha256"
            manifest = json.loads(
                (blobs / json.loads((place / "index.json").read_text())["manifests"][0]["digest"][7:]).read_text()
            )
            config, layer = manifest["config"]["digest"][7:], manifest["layers"][0]["digest"][7:]
            listed = [{"Config": f"{config}.json", "RepoTags": [f"{called}:latest"], "Layers": [f"{layer}/layer.tar"]}]
            with tarfile.open(path, "w") as tar:
                _add(tar, "manifest.json", json.dumps(listed).encode())
                tar.add(blobs / config, arcname=f"{config}.json")
                tar.add(blobs / layer, arcname=f"{layer}/layer.tar")
        return str(path)

    def many_images(self, called: str, number: int) -> str:
        """An archive of so many images that share their layer, each with a configuration of its own."""
        path = self._dir / f"many-{number}.tar"
        if not path.exists():
            layer = _layer({"file": b"the same in all\n"})
            listed, configs = [], {}
            for each in range(number):
                config = _config([layer], labels={"number": str(each)})
                name = f"{sha256(config).hexdigest()}.json"
                configs[name] = config
                listed.append({"Config": name, "RepoTags": [f"{called}:{each}"], "Layers": ["0/layer.tar"]})
            with tarfile.open(path, "w") as tar:
                _add(tar, "manifest.json", json.dumps(listed).encode())
                _add(tar, "0/layer.tar", layer)
                for name, config in configs.items():
                    _add(tar, name, config)
        return str(path)

    def _layers(self, name: str) -> list[bytes]:
        base = _busybox()
        if name.startswith("files-"):
            content = {f"files/{each // 100}/{each}": _text(each, 1024) for each in range(int(name.removeprefix("files-")))}
            return [base, _layer(content)]
        if name == "deep":
            return [base, *(_layer({f"layer-{each}": b"x"}) for each in range(DEEP_LAYERS - 1))]
        return [base]

    def _big_layer(self) -> Path:
        path = self._dir / "big-layer.tar"
        if not path.exists():
            with path.open("wb") as out, tarfile.open(fileobj=out, mode="w") as tar:
                _add_busybox(tar)
                for name, content in big_files():
                    _add(tar, name, content)
        return path


def big_files() -> Iterator[tuple[str, bytes]]:
    """8,000 files, most small and few large as in a Linux distribution; an eighth of the blocks noise and the rest words."""
    dice = random.Random(7)
    sizes = [dice.lognormvariate(8.5, 1.8) for _ in range(BIG_FILES)]
    scale = BIG_BYTES / sum(sizes)
    words = [bytes(dice.choices(b"abcdefghijklmnopqrstuvwxyz_ ./\n", k=dice.randint(2, 9))) for _ in range(3000)]
    text = b" ".join(dice.choices(words, k=1_000_000))
    noise = dice.randbytes(4 << 20)
    for number, size in enumerate(sizes):
        left, parts = round(size * scale), []
        while left > 0:
            source = noise if dice.random() < 0.12 else text
            length = min(left, 16384)
            begin = dice.randrange(len(source) - length)
            parts.append(source[begin : begin + length])
            left -= length
        yield f"usr/share/{number % 40}/{number // 40 % 10}/{number}", b"".join(parts)


def write_docker_archive(path: Path, called: str, layers: list[bytes]) -> None:
    """Write an image in the form of `docker save`."""
    config = _config(layers)
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    config_name = f"{sha256(config).hexdigest()}.json"
    with tarfile.open(path, "w") as tar:
        _add(
            tar, "manifest.json", json.dumps([{"Config": config_name, "RepoTags": [f"{called}:latest"], "Layers": names}]).encode()
        )
        _add(tar, config_name, config)
        for name, layer in zip(names, layers, strict=True):
            _add(tar, name, layer)


def _config(layers: list[bytes], *, diff_ids: tuple[str, ...] = (), labels: dict[str, str] | None = None) -> bytes:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    found = list(diff_ids) or [f"sha256:{sha256(each).hexdigest()}" for each in layers]
    document = {
        "architecture": machine,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": labels or {}},
        "rootfs": {"type": "layers", "diff_ids": found},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "bench"} for _ in found],  # buildah wants one for each layer
    }
    return json.dumps(document).encode()


def _write_layout(place: Path, packed: Path, digest: str, diff_id: str) -> None:
    blobs = place / "blobs/sha256"
    blobs.mkdir(parents=True)
    size = packed.stat().st_size
    packed.rename(blobs / digest)
    config = _config([], diff_ids=(f"sha256:{diff_id}",))
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", sha256(config).hexdigest(), len(config)),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest, size)],
        }
    ).encode()
    for each in (config, manifest):
        (blobs / sha256(each).hexdigest()).write_bytes(each)
    one = _descriptor("application/vnd.oci.image.manifest.v1+json", sha256(manifest).hexdigest(), len(manifest))
    index = {"schemaVersion": 2, "manifests": [{**one, "annotations": {"org.opencontainers.image.ref.name": "latest"}}]}
    (place / "index.json").write_text(json.dumps(index))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _gzip(source: Path, target: Path) -> str:
    packer = zlib.compressobj(6, wbits=31)
    digest = sha256()
    with source.open("rb") as file, target.open("wb") as out:
        while data := file.read(1 << 20):
            _write(out, digest, packer.compress(data))
        _write(out, digest, packer.flush())
    return digest.hexdigest()


def _write(out: BinaryIO, digest: "object", data: bytes) -> None:
    digest.update(data)  # type: ignore[attr-defined]  # hashlib's objects have no public type
    out.write(data)


def _file_digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def _busybox() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _add_busybox(tar)
    return out.getvalue()


def _add_busybox(tar: tarfile.TarFile) -> None:
    path = next((each for each in ("/usr/bin/busybox", "/bin/busybox") if os.path.exists(each)), "")
    if not path:
        raise AbsentError("busybox is not installed (Debian's package busybox-static)")
    applets = subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, MTIME
        tar.addfile(info)
    _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    _add(tar, "etc/group", b"root:x:0:\n")
    _add(tar, "bin/busybox", Path(path).read_bytes(), mode=0o755)
    for name in applets:
        if name != "busybox":
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname, info.mode, info.mtime = tarfile.SYMTYPE, "busybox", 0o777, MTIME
            tar.addfile(info)


def _layer(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            _add(tar, name, content)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, MTIME
    tar.addfile(info, io.BytesIO(content))


def _text(number: int, size: int) -> bytes:
    return (f"file {number} of many\n".encode() * (size // 16))[:size]
