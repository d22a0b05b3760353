"""Images as archives, made here, so that what is loaded owes nothing to the code under test: trees are declared, tar is written."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from subprocess import run

MTIME = 1_700_000_000.25
BUSYBOX = Path("/usr/bin/busybox")
APPLETS = run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One member of a layer. `content` is a file's bytes, or with `type` the target of a link."""

    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, str] = field(default_factory=dict)


def folder(mode: int = 0o755, **options: object) -> Item:
    """A directory."""
    return Item(type=tarfile.DIRTYPE, mode=mode, **options)  # type: ignore[arg-type]


def link(target: str) -> Item:
    """A symlink."""
    return Item(type=tarfile.SYMTYPE, content=target.encode(), mode=0o777)


def layer(items: Mapping[str, Item | str]) -> bytes:
    """A layer's tar; a text is a file's content. The order is kept."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, item in items.items():
            one = Item(content=item.encode()) if isinstance(item, str) else item
            info = tarfile.TarInfo(path)
            info.type, info.mode, info.uid, info.gid, info.mtime = one.type, one.mode, one.uid, one.gid, MTIME
            info.devmajor, info.devminor = one.device
            info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in one.xattrs.items()}
            if one.type == tarfile.REGTYPE:
                info.size = len(one.content)
                tar.addfile(info, io.BytesIO(one.content))
            else:
                info.linkname = one.content.decode()
                tar.addfile(info)
    return out.getvalue()


def busybox_layer(*applets: str) -> bytes:
    """The host's busybox with some of its applets, or all, and the files of a small system."""
    items: dict[str, Item | str] = {name: folder() for name in ("bin", "dev", "etc", "home", "proc", "sys", "var")}
    items |= {"tmp": folder(0o1777), "root": folder(0o700), "home/alice": folder(0o750, uid=1000, gid=1000)}
    items |= {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
        "etc/group": "root:x:0:\ntty:x:5:\nalice:x:1000:\nwheel:x:10:alice\n",
        "etc/hosts": "",
        "etc/hostname": "",
        "etc/resolv.conf": "",
    }
    items["bin/busybox"] = Item(content=BUSYBOX.read_bytes(), mode=0o755)
    items |= {f"bin/{name}": link("busybox") for name in applets or APPLETS if name != "busybox"}
    return layer(items)


def image(path: Path, name: str, layers: Sequence[bytes], **config: object) -> Path:
    """Write an image in the form of `docker save`; `config` is its defaults, such as Cmd and User."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"], **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(each).hexdigest()}" for each in layers]},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": f"layer {number}"} for number in range(len(layers))],
    }
    encoded = json.dumps(document).encode()
    config_name = f"{sha256(encoded).hexdigest()}.json"
    paths = [f"{number:04}/layer.tar" for number in range(len(layers))]
    members = {config_name: encoded, **dict(zip(paths, layers, strict=True))}
    members["manifest.json"] = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": paths}]).encode()
    with tarfile.open(path, "w") as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def base_layers() -> list[bytes]:
    """The image `base` that most tests run: busybox, and on it a layer with every kind of file that a test may want to harm."""
    return [
        busybox_layer(),
        layer(
            {
                "test": folder(),
                "test/inside": "the image's own\n",
                "test/deep": folder(0o700),
                "test/deep/file": "deep\n",
                "single": "the image's own file\n",
                "files": folder(0o755),
                "files/plain": "plain\n",
                "files/twin": Item(type=tarfile.LNKTYPE, content=b"files/plain"),
                "files/link": link("plain"),
                "files/owned": Item(content=b"owned\n", uid=1000, gid=10, mode=0o640),
                "files/setuid": Item(content=b"#!/bin/sh\n", mode=0o4755),
                "files/noted": Item(content=b"noted\n", xattrs={"user.note": "from the image"}),
                "files/pipe": Item(type=tarfile.FIFOTYPE, mode=0o600),
                "files/device": Item(type=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
                "files/doomed": "to be deleted\n",
                "tree": folder(0o755),
                "tree/a": "a\n",
                "tree/sub": folder(0o711),
                "tree/sub/b": "b\n",
                "data": folder(0o770, uid=1000, gid=1000),
                "data/seed": Item(content=b"seed\n", uid=1000, gid=1000),
            }
        ),
    ]
