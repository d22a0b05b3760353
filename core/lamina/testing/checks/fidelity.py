"""What is written into a layer is seen in the layers on top of it exactly as it would lie in a plain directory."""

import os

from lamina.api.types import Fidelity
from lamina.testing import tree
from lamina.testing.bench import Bench
from lamina.testing.check import check, require, same
from lamina.testing.samples import BASE, SAMPLES, Sample, claim_of
from lamina.testing.tree import DEFAULT_ACL, Directory, Facts, File, Tree


def plain(bench: Bench, declared: Tree, name: str = "plain") -> dict[str, Facts]:
    """Make the tree in a plain directory on the same file system, and read it: what the driver is held against."""
    place = f"{bench.dir}/{name}"
    os.mkdir(place, 0o755)
    tree.make(place, declared)
    return tree.read(place)


def require_equal(found: dict[str, Facts], wanted: dict[str, Facts], what: str) -> None:
    """Fail with the differences, if there are any."""
    words = tree.differences(found, wanted)
    require(not words, f"{what}: {'; '.join(words[:8])}")


def require_hole(root: str, sample: Sample) -> None:
    """Fail if a sample's hole was filled."""
    for path in sample.tree if sample.has_hole else ():
        info = os.lstat(f"{root}/{path}")
        require(
            info.st_blocks * 512 < info.st_size // 2,
            f"'{path}' of {info.st_size} bytes takes {info.st_blocks * 512}: its hole was filled",
        )


@check("fidelity", params=SAMPLES, claims=claim_of)
def kept_in_a_child(bench: Bench, sample: Sample) -> None:
    """Whatever a layer holds is the same in a layer on top of it: for copying drivers this is their copy."""
    base = bench.made(sample.tree)
    child = bench.made(below=base)
    require_equal(bench.tree(child), plain(bench, sample.tree), "in a child")
    with bench.reading(child) as root:
        require_hole(root, sample)


@check("fidelity")
def a_layer_is_the_same_after_it_was_mounted_again(bench: Bench) -> None:
    """A container that is stopped and started finds what it left."""
    wanted = plain(bench, BASE)
    layer = bench.prepare()
    bench.write(layer, BASE)
    for _ in range(3):
        with bench.writing(layer) as root:
            require_equal(tree.read(root), wanted, "mounted again")


@check("fidelity")
def a_sealed_layer_is_the_same_as_before(bench: Bench) -> None:
    """Sealing makes durable and changes nothing."""
    layer = bench.prepare(bench.made(BASE))
    bench.write(layer, {"new": File("new"), "dir/new": File("new")})
    before = bench.tree(layer)
    bench.driver.seal(layer.key)
    require_equal(bench.tree(layer), before, "after the seal")


@check("fidelity")
def the_longest_name_claimed_is_kept(bench: Bench) -> None:
    """`max_name_bytes` is a promise."""
    name = "n" * bench.claims.max_name_bytes
    child = bench.made(below=bench.made({name: File("x"), f"d/{name}": Directory()}))
    require(name in bench.tree(child), f"a name of {len(name)} bytes is lost")


@check("fidelity")
def a_name_that_looks_like_a_whiteout_hides_nothing(bench: Bench) -> None:
    """A container may call a file `.wh.x`; unless the driver forbids such names, it is a file as any other and `x` stays."""
    if ".wh.".startswith(bench.claims.forbidden_prefix or "-"):
        base = bench.made({"x": File("x")})
        layer = bench.prepare(base)
        with bench.writing(layer) as root:
            try:
                with open(f"{root}/.wh.x", "x", encoding="ascii"):
                    pass
            except OSError as error:
                bench.note(f"making '.wh.x': {error.strerror}")
        with bench.writing(layer) as root:
            require(os.path.exists(f"{root}/x"), "'.wh.x', made by a container, hid 'x'")
        return
    base = bench.made({"x": File("x"), ".wh.y": File("not a whiteout"), "y": File("y")})
    child = bench.prepare(base)
    bench.write(child, {".wh.x": File("not a whiteout")})
    same(sorted(path for path in bench.tree(child) if path), [".wh.x", ".wh.y", "x", "y"], "what is seen")


@check("fidelity")
def a_default_ACL_above_the_store_reaches_no_layer(bench: Bench) -> None:
    """A directory inherits its parent's default ACL (acl(5)); what an administrator gave the store is not the image's."""
    home = f"{bench.dir}/with-acl"
    os.mkdir(home, 0o710)
    try:
        os.setxattr(home, DEFAULT_ACL, tree.ACL)
    except OSError:
        bench.note("the file system has no ACLs")
        return
    wanted = plain(bench, {"d/f": File("x")})
    with bench.elsewhere(home) as other:
        layer = other.made(below=other.applied(_archive()))
        require_equal(other.tree(layer), wanted, "below a directory with a default ACL")


def _archive() -> bytes:
    from lamina.testing.tar import archive_of

    return archive_of({"d/f": File("x")})


@check("fidelity", claims=Fidelity.DEVICES)
def a_device_in_a_layer_can_be_opened(bench: Bench) -> None:
    """A view mounted `nodev` would make an image's devices dead."""
    with bench.writing(bench.prepare(bench.made({"null": tree.Special(tree.Kind.CHAR_DEVICE, device=(1, 3))}))) as root:
        with open(f"{root}/null", "wb") as null:
            null.write(b"x")


@check("fidelity", claims=Fidelity.MODE)
def a_program_in_a_layer_can_be_run(bench: Bench) -> None:
    """A view mounted `noexec`, or a mode that was lost, would make an image useless."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        pid = os.posix_spawn(f"{root}/script", ["script"], {})
        same(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 7, "the script's exit code")


@check("fidelity")
def a_large_file_is_kept(bench: Bench) -> None:
    """More than a copy takes in one call."""
    content = os.urandom(1 << 20) * 9
    child = bench.made(below=bench.made({"big": File(content)}))
    with bench.reading(child) as root, open(f"{root}/big", "rb") as file:
        require(file.read() == content, "a file of 9 MiB came back changed")


@check("fidelity")
def no_attribute_of_the_driver_is_seen(bench: Bench) -> None:
    """What a driver marks its layers with is no part of the image: it would be committed and pushed."""
    import shutil

    middle = bench.prepare(bench.made(BASE))
    with bench.writing(middle) as root:
        shutil.rmtree(f"{root}/dir")
        os.mkdir(f"{root}/dir")
        os.rename(f"{root}/file", f"{root}/dir/file")
        os.unlink(f"{root}/link")
    bench.driver.seal(middle.key)
    top = bench.prepare(middle)
    for what, view in (("the layer", middle), ("a child", top)):
        found = {path: facts.xattrs for path, facts in bench.tree(view).items() if facts.xattrs}
        same(found, {}, f"xattrs seen in {what}")
