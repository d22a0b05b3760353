"""Every work, what is asked of it, and how often it is done unless ROUNDS says otherwise.

To add one: a function that gives a contender for each engine, in a module of `works/`, and an entry here. A work's group is what
stands before the first hyphen of its name: `WORKS=build` does three.
"""

from collections.abc import Sequence

from lamina_bench.report import Kind, Metric, Target
from lamina_bench.work import FailedError, Work
from lamina_bench.works import building, commands, drivers, images, layers, memory, running

FAST, SLOW, HEAVY = 20, 5, 3
PEERS = ("docker", "podman")


def _peers(title: str, to: tuple[str, ...], limit: float, aim: float, metric: Metric = Metric.WALL) -> Target:
    return Target(title=title, of="lamina", to=to, limit=limit, aim=aim, metric=metric)


WORKS: tuple[Work, ...] = (
    Work(
        name="run-host",
        title="run --rm --net host of true",
        what="`run --rm --net host IMAGE true`: a container of a small image from nothing until nothing is left. "
        "Podman has two `--ulimit`.",
        contenders=running.run("host"),
        rounds=FAST,
        warm_up=2,
        targets=[_peers("run --net host, to the faster of docker and podman", PEERS, 0.6, 0.4)],
    ),
    Work(
        name="run-none",
        title="run --rm --net none of true",
        what="The same with a network namespace of its own, with loopback and nothing else.",
        contenders=running.run("none"),
        rounds=FAST,
        warm_up=2,
        targets=[_peers("run --net none, to the faster of docker and podman", PEERS, 0.6, 0.4)],
    ),
    Work(
        name="library",
        title="a container through the library",
        what="In one Python process with one open `Engine`: `start_attached` of a container that `create` has "
        "made, until it is reaped; "
        "beside it all of it, `create` to `remove`. crun: `crun run` of the same root, prepared, with the "
        "configuration of `crun spec`.",
        contenders=running.library,
        rounds=FAST,
        warm_up=2,
        targets=[
            Target(
                title="start to reaped in one Python process, to crun run", of="lamina.engine", to=("crun",), limit=0.8, aim=0.5
            ),
            Target(title="create to remove in one Python process, to crun run", of="lamina.engine, create to remove", to=("crun",)),
        ],
    ),
    Work(
        name="exec",
        title="exec true",
        what="`exec CONTAINER true` in a container that sleeps.",
        contenders=commands.of_all("exec", "main", "true", peers=PEERS, containers=1),
        rounds=FAST,
        warm_up=2,
        targets=[_peers("exec, to the faster of docker and podman", PEERS, 1.2, 0.8)],
    ),
    Work(
        name="ps",
        title="ps -a",
        what="`ps -a` with ten containers, one of which runs. Docker's daemon may know others.",
        contenders=commands.of_all("ps", "-a", peers=PEERS, containers=commands.KNOWN),
        rounds=FAST,
        warm_up=2,
        targets=[_peers("ps, to podman's", ("podman",), 1.8, 1.2)],
    ),
    Work(
        name="inspect",
        title="inspect",
        what="`inspect CONTAINER` of the running one.",
        contenders=commands.of_all("inspect", "main", peers=PEERS, containers=commands.KNOWN),
        rounds=FAST,
        warm_up=2,
        targets=[_peers("inspect, to podman's", ("podman",), 1.8, 1.2)],
    ),
    Work(
        name="images",
        title="images",
        what="`images`, with the few that the benchmark has given to each. Docker's daemon may know others.",
        contenders=commands.of_all("images", peers=PEERS, containers=0),
        rounds=FAST,
        warm_up=2,
        targets=[_peers("images, to podman's", ("podman",), 1.8, 1.2)],
    ),
    Work(
        name="version",
        title="version",
        what="`lamina version` beside the same Python's `python -c pass`.",
        contenders=commands.version,
        rounds=FAST,
        warm_up=2,
        targets=[_peers("version, to python -c pass", ("python -c pass",), 4.5, 3)],
    ),
    Work(
        name="load",
        title="load of 240 MB in 8,000 files",
        what="`load -i` of an archive in Docker's form with one gzip layer of 240 MB and 8,000 files, unpacked; "
        "Lamina's figure has `create` in it too, which would unpack what isn't yet. umoci: `unpack` of the same layer from a "
        "layout. The processor time of Docker's daemon counts.",
        contenders=images.load,
        rounds=SLOW,
        settle=True,
        targets=[
            _peers("load, wall, to the fastest of docker, podman, umoci", (*PEERS, "umoci"), 0.6, 0.4),
            _peers("load, CPU, to the fastest of docker, podman, umoci", (*PEERS, "umoci"), 0.6, 0.4, Metric.CPU),
        ],
    ),
    Work(
        name="pull",
        title="pull of 240 MB in 8,000 files",
        what="`pull` of the same image from Debian's docker-registry on loopback, unpacked; Lamina's figure has "
        "`create` in it too.",
        contenders=images.pull,
        rounds=SLOW,
        settle=True,
        targets=[
            _peers("pull, wall, to the faster of docker and podman", PEERS, 0.6, 0.4),
            _peers("pull, CPU, to the faster of docker and podman", PEERS, 0.6, 0.4, Metric.CPU),
        ],
    ),
    Work(
        name="commit",
        title="commit of 3,000 new files",
        what="`commit` of a container that has written 3,000 files of 1 KiB into 30 directories and ended.",
        contenders=layers.written(layers.Commit),
        rounds=SLOW,
        settle=True,
        targets=[_peers("commit of 3,000 new files, to podman's", ("podman",), 0.6, 0.4)],
    ),
    Work(
        name="diff",
        title="diff of 3,000 new files",
        what="`diff` of the same container.",
        contenders=layers.written(layers.Diff),
        rounds=FAST,
        targets=[_peers("diff of 3,000 new files, to podman's", ("podman",), 1.2, 0.8)],
    ),
    Work(
        name="commit-one",
        title="commit of one changed file",
        what="`commit` of a container that has changed one file of an image with 8,000 small files, and of one "
        "with 100, by driver; aufs in the "
        "form that this kernel has.",
        contenders=layers.commit_one,
        rounds=10,
        settle=True,
        targets=[
            Target(
                title=f"commit of one file, {driver}, base of 8,000 to 100",
                of=f"{driver} 8,000",
                to=(f"{driver} 100",),
                limit=1.2,
                aim=1.05,
            )
            for driver in layers.FORMS
        ],
    ),
    Work(
        name="build-cold",
        title="build of ten steps, cold",
        what="`build --no-cache` of ten steps on a small image: five RUN, two COPY. Docker builds by its classic "
        "builder, `buildah bud --layers`.",
        contenders=building.build(building.How.COLD),
        rounds=SLOW,
        settle=True,
        targets=[_peers("build cold, to the faster of docker (classic) and buildah", ("docker", "buildah"), 0.8, 0.5)],
    ),
    Work(
        name="build-change",
        title="build after a change of one line",
        what="The same with the cache, one source file of the second COPY changed before each: four steps are done again.",
        contenders=building.build(building.How.CHANGE),
        rounds=SLOW,
        settle=True,
        targets=[
            Target(
                title="build after a change, to the faster of docker (classic) and buildah", of="lamina", to=("docker", "buildah")
            )
        ],
    ),
    Work(
        name="build-cached",
        title="build with all cached",
        what="The same with nothing changed.",
        contenders=building.build(building.How.CACHED),
        rounds=FAST,
        targets=[
            _peers("build cached, to the faster of docker (classic) and buildah", ("docker", "buildah"), 0.5, 0.3),
            Target(title="build cached, to lamina version", of="lamina", to=("lamina version",), limit=2.0),
        ],
    ),
    Work(
        name="many",
        title="100 containers, 8 at a time",
        what="`run -d --net none` of 100 containers that sleep, 8 commands at any time, until the last has "
        "returned; removed outside of the time.",
        contenders=running.many,
        rounds=HEAVY,
        settle=True,
        targets=[
            Target(
                title="containers per second, 8 at a time, to docker's",
                of="lamina",
                to=("docker",),
                kind=Kind.RATE,
                limit=2.0,
                aim=4.0,
            )
        ],
    ),
    Work(
        name="memory",
        title="memory of an idle container",
        what="50 detached containers that sleep: the proportional set size of the process that stays beside each "
        "one (monitor, containerd-shim, "
        "conmon), a container's share.",
        contenders=memory.idle,
        rounds=HEAVY,
        warm_up=0,
        targets=[_peers("memory of an idle container, to containerd-shim's", ("docker",), 2.0, 1.0, Metric.MEMORY)],
    ),
    Work(
        name="reflink",
        title="vfs with reflinks",
        what="`run --rm --net none IMAGE true` with vfs and with overlay, both on a new btrfs in a file: of the "
        "small image, and of one with 8,000 "
        "files more.",
        contenders=drivers.reflink,
        rounds=10,
        targets=[
            Target(
                title=f"vfs with reflinks to overlay, same disk, {title}",
                of=f"vfs, {sample}",
                to=(f"overlay, {sample}",),
                limit=2.0,
                aim=1.3,
            )
            for sample, title in (("busybox", "small image"), ("files-8000", "8,000 files"))
        ],
    ),
    Work(
        name="mount",
        title="overlay mount of 400 layers",
        what="Through the library: the driver's answer for a container on 400 layers, and its mount; the "
        "container's layer is there already.",
        contenders=drivers.mount,
        rounds=FAST,
        warm_up=2,
        targets=[Target(title="overlay mount of 400 layers", of="400 layers", kind=Kind.VALUE, limit=0.004, aim=0.002)],
    ),
    Work(
        name="known",
        title="run among many",
        what="`run --rm --net none IMAGE true` where 10,000 containers and 1,000 images are known, and where 10 and 10 are.",
        contenders=running.known,
        rounds=FAST,
        warm_up=2,
        targets=[
            Target(
                title="run, 10,000 containers and 1,000 images known to 10", of="10,000 known", to=("10 known",), limit=1.5, aim=1.1
            )
        ],
    ),
    Work(
        name="bridge",
        title="what the bridge costs",
        what="`run --rm IMAGE true` on the bridge and without a network, in a network namespace of the benchmark's"
        " own; docker by a daemon of its "
        "own there.",
        contenders=running.bridge,
        rounds=FAST,
        warm_up=2,
        targets=[
            Target(
                title="the bridge adds to a start",
                of="lamina bridge",
                to=("lamina none",),
                kind=Kind.DIFFERENCE,
                limit=0.030,
            ),
            Target(title="docker's bridge adds to a start", of="docker bridge", to=("docker none",), kind=Kind.DIFFERENCE),
        ],
    ),
)


def chosen(names: Sequence[str]) -> list[Work]:
    """The works of these names or groups, all without any. Raises `FailedError` for a name that isn't there."""
    for name in names:
        if not any(_is(work, name) for work in WORKS):
            raise FailedError(f"no work is called '{name}'; they are {', '.join(work.name for work in WORKS)}")
    return [work for work in WORKS if not names or any(_is(work, name) for name in names)]


def _is(work: Work, name: str) -> bool:
    return name in (work.name, work.name.partition("-")[0])
