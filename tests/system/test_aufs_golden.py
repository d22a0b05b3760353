"""What aufs itself left on disk after 109 operations (tests/data/aufs-observed.json), and what this driver leaves.

Each operation of the record is a line of steps in `OPERATIONS`, done through the driver's mount on fresh standard layers. The
layer at rest must then hold what aufs's writable branch held: names, types, modes, owners, sizes, contents, links, devices and
xattrs, aufs's bookkeeping entries too. Aside are what the bookkeeping directories hold, the number of links, and times.

Where a way of mounting can't do as aufs, `TABLE` says why and what exactly differs: `-` is aufs's entry, `+` is ours. (Seen with
Linux 6.18 and fuse-overlayfs 1.10, Debian 12's.)

A step is a word of `Through` and its arguments; `!` before it: the kernel may refuse it, with whatever error.
"""

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.store import views
from lamina_aufs.driver import Driver
from lamina_aufs.method import Method
from lamina_aufs.names import BASE, BOOKKEEPING, OPAQUE, PREFIX

RECORD = json.loads((Path(__file__).parent.parent / "data" / "aufs-observed.json").read_text())
GOLDEN = {op["op"]: op for op in RECORD["ops"]}
METHODS = {"overlay": Method.OVERLAY, "fuse": Method.FUSE}
IS_6_7 = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2]) >= (6, 7)
LONG_AGO_S = 1_500_000_000
ACL = bytes.fromhex("02000000 01000600ffffffff 02000700d2040000 04000400ffffffff 10000600ffffffff 20000000ffffffff")
"""user::rw-, user:1234:rwx, group::r--, mask::rw-, other::--- (linux/posix_acl_xattr.h)."""
ACL_READ = ACL.replace(bytes.fromhex("10000600"), bytes.fromhex("10000400"))
"""The same with mask::r--."""

OPERATIONS = {
    "mount_only": "",
    "mount_only_default_xino": "",
    "unlink_lower_file": "rm f1",
    "unlink_file_in_both_lowers": "rm f2",
    "unlink_nested_lower_file": "rm d1/sub/c",
    "unlink_two_files_same_dir": "rm f1; rm d1/a; rm d1/b",
    "unlink_upper_only_file": "write new x; rm new",
    "unlink_copied_up_file": "append f1 x; rm f1",
    "rmtree_lower_dir": "rmtree d1",
    "rmdir_empty_lower_dir": "rmdir empty",
    "rmdir_nonempty_lower_dir": "!rmdir d1",
    "unlink_then_recreate_file": "rm f1; write f1 new",
    "rmtree_then_mkdir": "rmtree d1; mkdir d1",
    "rmtree_mkdir_and_file": "rmtree d1; mkdir d1; write d1/a na",
    "rmtree_opaque_dir_again": "rmtree d1; mkdir d1; write d1/a na; rmtree d1",
    "mkdir_fresh": "mkdir nd; write nd/f x",
    "file_replaced_by_dir": "rm f1; mkdir f1; write f1/in x",
    "dir_replaced_by_file": "rmtree d1; write d1 'now file'",
    "dir_replaced_by_symlink": "rmtree d1; symlink empty d1",
    "rename_lower_file": "mv f1 g1",
    "rename_lower_file_over_lower": "mv f1 f2",
    "rename_new_file_over_lower": "write tmp saved; mv tmp d1/a",
    "rename_lower_dir": "!mv d1 d2",
    "rename_lower_single_layer_dir": "!mv d1/sub d1/sub2",
    "rename_lower_empty_dir": "!mv empty e2",
    "mv_lower_dir": "run mv d1 d2",
    "rename_new_dir": "mkdir n1; write n1/f x; mv n1 n2",
    "rename_new_dir_over_lower_empty": "mkdir n1; write n1/f x; mv n1 empty",
    "rename_new_dir_onto_whiteouted_name": "rmtree d1; mkdir n1; write n1/f x; mv n1 d1",
    "rename_opaque_dir": "rmtree d1; mkdir d1; write d1/f x; mv d1 d2",
    "rename_upper_modified_merged_dir": "write d1/n n; !mv d1 d2",
    "rename_exchange": "mv2 f1 f2 2; !mv2 f1 f2 1; mv2 f1 z 1; !mv2 z zz 4",
    "link_lower_file_same_dir": "link f1 l1; stat f1; stat l1",
    "link_lower_file_other_dir": "link f1 d1/l1; append d1/l1 M; read f1",
    "link_then_remount": "link f1 d1/l1; remount; append d1/l1 M; read f1",
    "lower_hardlink_pair_write_one": r"append h1 more\n; read h2; read d1/h3; append h2 again\n; read h1; read d1/h3",
    "lower_hardlink_pair_remount": r"append h1 more\n; read h2; remount; read h1; read h2",
    "lower_hardlink_pair_auplink_flush": r"append h1 more\n; read h2; stat d1/h3; remount; read h2",
    "lower_hardlink_pair_noplink": r"append h1 more\n; read h2",
    "unlink_one_of_lower_hardlinks": "rm h1; read h2",
    "chmod_lower_file": "chmod f1 600",
    "chown_lower_file": "chown f1 7 8; chown suid 7 8",
    "utimens_lower_file": "utime f1",
    "setxattr_lower_file": "setx f1 user.x val; setx f1 trusted.t tv; setcap f1; rmx f1 user.low",
    "xattr_names_of_unionfs": "!setx d1 trusted.overlay.opaque y; !setx d1 trusted.overlay.zzz y; !setx d1 user.overlay.opaque y;"
    "setx d1 trusted.aufs.x y",
    "chmod_lower_dir": "chmod d1 700",
    "chown_lower_dir": "chown d1 7 8",
    "utimens_lower_dir": "utime d1",
    "setxattr_lower_dir": "setx d1 user.x v",
    "posix_acl": "!acl f1 access; !acl d1 default; write d1/new x",
    "append_small_lower_file": r"append f1 more\n",
    "append_large_lower_file": "append big 1234",
    "open_rw_without_writing": "touch f1 +; touch f2 a",
    "truncate_lower_file": "write big ''; truncate f2 5; truncate f1 0",
    "sparse_copy_up": "append sparse xyz",
    "symlink_ops": "symlink /abs/target newln; lchown ln 7 8; rm ln; symlink f2 ln",
    "mknod_all": "mknod nfifo p; mknod nchr c 1 3; mknod nblk b 7 0; !mknod nwh c 0 0; bind nsock; mknod nreg f; rm fifo; rm null",
    "chmod_lower_special": "!chmod fifo 600; !chmod null 640",
    "unlink_open_lower_file": "hold f1 r; rm f1; release",
    "unlink_open_new_file": "hold new w+; rm new; held_write hello; release",
    "unlink_open_ro_then_fchmod": "hold f1 r; rm f1; !held_chmod 600; release",
    "read_fd_then_write": r"hold f1 r; append f1 NEW\n; held_chmod 611; release",
    "mmap_shared_then_write": "map_then_write f1 NEW",
    "inode_stability": "append f1 z; write d1/n n; write new n; remount; stat f1; stat d1",
    "middle_layer_whiteouts": "stat d1/b; !stat f1",
    "create_over_middle_whiteout": "write f1 x; mkdir empty; write d1/sub/n n; rm d1/sub/only_ro1; rm f1",
    "rmtree_dir_with_middle_whiteouts": "rmtree d1",
    "ro_branch_without_wh_attr": "",
    "lower_branch_with_meta_entries": "stat f1",
    "user_names_with_wh_prefix": "!write .wh.foo x; !mkdir .wh.dir; !symlink f1 .wh.ln; !mknod .wh.p p; !link f2 .wh.l;"
    "!mv f2 .wh.r; write .wh x; !write .wh. x; write .whx x; !write d1/.wh.q x; !write .wh..wh..opq x; !rm .wh.f1; !write .wh.e x",
    "name_length": "names",
    "new_file_in_nested_lower_dir": "write d1/sub/deep/new n",
    "unlink_all_then_rmdir": "rm d1/sub/deep/e; rmdir d1/sub/deep",
    "rmtree_many_files": "rmtree many",
    "rmdir_whiteouts_dir_open": "hold_dir many; rmtree many; release",
    "whiteouts_nolwh": "rm f1; rm f2",
    "o_tmpfile": "!tmpfile gotit",
    "o_direct": "!direct f1",
    "o_direct_nodio": "!direct f1",
    "atime_on_lower_read": "read f1; list d1",
    "dirperm_with_dirperm1": "as 1000 read p/secret",
    "dirperm_without_dirperm1": "!as 1000 read p/secret",
    "nonroot_writes": "as 1000 append f1 u; !as 1000 append f2 u; !as 1000 rm f1; as 1000 rm d1/a; as 1000 write d1/n x;"
    "!as 1000 rmdir d1/sub",
    "setuid_copy_up_by_write": "append suid x",
    "file_handles_and_flock": "flock f1",
    "exec_from_mount": "run ./busybox; rm busybox",
    "ext_readdir_while_unlinking": "hold_dir d1; rm d1/a; rm d1/b; rm d1/x; release",
    "seek_copy_up_parent_times": "append d1/a x; rm d1/b",
    "write_through_branch_directly": "branch_write outside o; !stat outside",
    "posix_acl_with_acl_option": "acl f1 access; acl d1 default; write d1/new x",
    "copy_up_of_xattrs": "utime f1; utime d1; write d1/n n",
    "odd_whiteouts": "!stat f1; !stat f2; !stat big; !stat sparse; !stat suid; list empty; write f2 n; !rm big",
    "opaque_branch_root": "list .; !stat f1; !list d1",
    "type_conflicts": "rm cf; mkdir cf; rmtree cd; chmod tri 600",
    "mmap_shared_writable": "map_write f1 MMM",
    "inotify_on_lower_then_write": "append f1 x; write nf x",
    "data_syscalls": "allocate f1 8192; copy_range big cp 65536; sendfile big cp2 65536; sync d1",
    "root_attributes": "chmod . 711; chown . 3 4; setx . user.r v",
    "rename_logically_empty_dir": "rm d1/sub/deep/e; !mv d1/sub/deep d1/sub/deep2",
    "rename_file_between_dirs": "mv f1 d1/sub/f1; mv d1/x x",
    "rename_back_and_forth": "mv f1 g; mv g f1",
    "rename_upper_file_over_and_delete": "write n x; mv n f1; rm f1",
    "remount_append_branch": "",
    "readonly_union": "readonly; !write q x; !rm f1; !chmod f1 600; !touch f1 +",
    "mount_errors": "branch_mkdir sub; branch_mkdir uu",
    "same_rw_twice": "write q 1",
    "special_mode_bits": "chown d1/sub 0 55; chmod d1/sub 3777; write d1/sub/n x; mkdir d1/sub/nd; open d1/sub/n2 666",
    "directory_fsize_nlink": "stat .; stat d1; list d1/sub",
    "docker_like_diff_and_commit": "rm f1; write new n; append h1 hh; rmtree d1/sub; mkdir d1/sub; write d1/sub/k k; on_top",
}

BY_HAND = "done with aufs's own mount options or on its branches, which this driver never does: its branches have the bookkeeping"
PARENT = "aufs has copied the parent up by the time it answers EXDEV"
MOVES = "any lower directory is EXDEV, while aufs moves one that looks empty"
LINKS = "one name of a lower hard link is copied up and the others are left, while aufs finds them all by its pseudo links"
OPENED = "a file is copied up when it is opened for writing, in aufs when it is written"
EMPTY_XATTR = "the xattr of a lower file is removed, while aufs answers ok and leaves an empty one"
PRIVATE = (
    "trusted.overlay.* is the union's own: overlayfs keeps a container's under trusted.overlay.overlay.*, fuse-overlayfs refuses it"
)
PREFIXED = "names beginning with .wh. can be used; they are kept out of the layer, and what a rename to one leaves behind stays"
DEVICE = "a device 0:0 can't be made, it is the union's whiteout"
ACLS = "an ACL can be set, which aufs refuses without its mount option acl"
NEEDLESS_OPAQUE = "an opaque mark goes when it hides nothing; aufs doesn't look again when it moves the directory"
GROUP = "fuse-overlayfs copies up a lower hard link's other name to unlink one"
SETGID = "fuse-overlayfs loses a directory's setgid bit when it copies it up, and doesn't hand it down"
FUSE_RENAMES = (
    "fuse-overlayfs leaves a whiteout of a rename's source, needed or not, keeps whiteouts below the target, and knows WHITEOUT"
)
FUSE_RESURRECTS = "fuse-overlayfs forgets that a renamed file covers a lower one: deleted, the lower one is seen again"
FUSE_MARKS = "fuse-overlayfs doesn't see that a middle layer hides the name already"
FUSE_DEVICES = "fuse-overlayfs copies devices and fifos up as empty files"
FUSE_ACLS = "fuse-overlayfs takes the umask from a default ACL's mode"

TABLE = r"""
unlink_nested_lower_file fuse: SETGID
    + d1/sub d 0711 0:0
    - d1/sub d 2711 0:0
rmtree_lower_dir fuse: GROUP
    + h1 f 0644 0:0 5 'hard\n'
rmtree_then_mkdir fuse: GROUP
    + h1 f 0644 0:0 5 'hard\n'
rmtree_mkdir_and_file fuse: GROUP
    + h1 f 0644 0:0 5 'hard\n'
rmtree_opaque_dir_again fuse: GROUP
    + h1 f 0644 0:0 5 'hard\n'
dir_replaced_by_file fuse: GROUP
    + h1 f 0644 0:0 5 'hard\n'
dir_replaced_by_symlink fuse: GROUP
    + h1 f 0644 0:0 5 'hard\n'
rename_lower_single_layer_dir overlay,fuse: PARENT
    - d1 d 0750 1000:1001 user.dirlow=from-ro1
rename_lower_empty_dir overlay,fuse: MOVES
    - .wh.empty f 0444 0:0 0
    - e2 d 0755 0:0
mv_lower_dir fuse: GROUP
    + h1 f 0644 0:0 5 'hard\n'
rename_new_dir_onto_whiteouted_name fuse: FUSE_RENAMES
    + d1/.wh.a f 0444 0:0 0
    + d1/.wh.b f 0444 0:0 0
    + d1/.wh.h3 f 0444 0:0 0
    + d1/.wh.sub f 0444 0:0 0
    + d1/.wh.x f 0444 0:0 0
    + h1 f 0644 0:0 5 'hard\n'
rename_opaque_dir overlay: NEEDLESS_OPAQUE
    - d2/.wh..wh..opq f 0444 0:0 0
rename_opaque_dir fuse: FUSE_RENAMES
    + h1 f 0644 0:0 5 'hard\n'
    - .wh.d1 f 0444 0:0 0
    - d2/.wh..wh..opq f 0444 0:0 0
rename_exchange fuse: FUSE_RENAMES
    + .wh.z f 0444 0:0 0
    + zz f 0644 0:0 12 'f2-from-ro1\n'
    - z f 0644 0:0 12 'f2-from-ro1\n'
link_then_remount overlay,fuse: LINKS
    + f1 f 0640 1000:1001 13 user.low=lowval 'f1-from-ro2\nM'
lower_hardlink_pair_write_one overlay: LINKS
    + h1 f 0644 0:0 10 'hard\nmore\n'
    + h2 f 0644 0:0 11 'hard\nagain\n'
    - d1 d 0750 1000:1001 user.dirlow=from-ro1
    - d1/h3 f 0644 0:0 16 'hard\nmore\nagain\n'
    - h1 f 0644 0:0 16 'hard\nmore\nagain\n'
    - h2 f 0644 0:0 16 'hard\nmore\nagain\n'
lower_hardlink_pair_write_one fuse: LINKS
    + h1 f 0644 0:0 10 'hard\nmore\n'
    - h1 f 0644 0:0 16 'hard\nmore\nagain\n'
    - h2 f 0644 0:0 16 'hard\nmore\nagain\n'
lower_hardlink_pair_remount overlay,fuse: LINKS
    - h2 f 0644 0:0 10 'hard\nmore\n'
lower_hardlink_pair_auplink_flush overlay,fuse: LINKS
    - d1 d 0750 1000:1001 user.dirlow=from-ro1
    - d1/h3 f 0644 0:0 10 'hard\nmore\n'
    - h2 f 0644 0:0 10 'hard\nmore\n'
lower_hardlink_pair_noplink overlay,fuse: BY_HAND
    + .wh..wh.plnk d 0700 0:0
unlink_one_of_lower_hardlinks fuse: GROUP
    + h2 f 0644 0:0 5 'hard\n'
setxattr_lower_file overlay,fuse: EMPTY_XATTR
    + f1 f 0640 1000:1001 12 security.capability=HANDLE trusted.t=tv user.x=val 'f1-from-ro2\n'
    - f1 f 0640 1000:1001 12 security.capability=HANDLE trusted.t=tv user.low=0x user.x=val 'f1-from-ro2\n'
xattr_names_of_unionfs overlay: PRIVATE
    + d1 d 0750 1000:1001 trusted.aufs.x=y trusted.overlay.overlay.opaque=y trusted.overlay.overlay.zzz=y user.dirlow=from-ro1 user.overlay.opaque=y
    - d1 d 0750 1000:1001 trusted.aufs.x=y trusted.overlay.opaque=y trusted.overlay.zzz=y user.dirlow=from-ro1 user.overlay.opaque=y
xattr_names_of_unionfs fuse: PRIVATE
    + d1 d 0750 1000:1001 trusted.aufs.x=y user.dirlow=from-ro1 user.overlay.opaque=y
    - d1 d 0750 1000:1001 trusted.aufs.x=y trusted.overlay.opaque=y trusted.overlay.zzz=y user.dirlow=from-ro1 user.overlay.opaque=y
posix_acl overlay: ACLS
    + d1 d 0750 1000:1001 system.posix_acl_default=HANDLE user.dirlow=from-ro1
    + d1/new f 0660 0:0 1 system.posix_acl_access=HANDLE 'x'
    + f1 f 0660 1000:1001 12 system.posix_acl_access=HANDLE user.low=lowval 'f1-from-ro2\n'
    - d1 d 0750 1000:1001 user.dirlow=from-ro1
    - d1/new f 0644 0:0 1 'x'
posix_acl fuse: ACLS
    + d1 d 0750 1000:1001 system.posix_acl_default=HANDLE user.dirlow=from-ro1
    + d1/new f 0640 0:0 1 system.posix_acl_access=HANDLE 'x'
    + f1 f 0660 1000:1001 12 system.posix_acl_access=HANDLE user.low=lowval 'f1-from-ro2\n'
    - d1 d 0750 1000:1001 user.dirlow=from-ro1
    - d1/new f 0644 0:0 1 'x'
open_rw_without_writing overlay,fuse: OPENED
    + f1 f 0640 1000:1001 12 user.low=lowval 'f1-from-ro2\n'
    + f2 f 0644 0:0 12 'f2-from-ro1\n'
mknod_all overlay,fuse: DEVICE
    - nwh c 0600 0:0 0:0
chmod_lower_special fuse: FUSE_DEVICES
    + fifo f 0600 0:0 0
    + null f 0640 0:0 0
    - fifo p 0600 0:0
    - null c 0640 0:0 1:3
create_over_middle_whiteout fuse: FUSE_MARKS
    + .wh.f1 f 0444 0:0 0
    + empty/.wh..wh..opq f 0444 0:0 0
rmtree_dir_with_middle_whiteouts fuse: GROUP
    + h1 f 0644 0:0 5 'hard\n'
user_names_with_wh_prefix overlay: PREFIXED
    + .wh.f2 f 0444 0:0 0
    + d1 d 0750 1000:1001 user.dirlow=from-ro1
user_names_with_wh_prefix fuse: PREFIXED
    + .wh.f2 f 0444 0:0 0
new_file_in_nested_lower_dir fuse: SETGID
    + d1/sub d 0711 0:0
    - d1/sub d 2711 0:0
unlink_all_then_rmdir fuse: SETGID
    + d1/sub d 0711 0:0
    - d1/sub d 2711 0:0
whiteouts_nolwh overlay,fuse: BY_HAND
    + .wh..wh.aufs f 0444 0:0 0
posix_acl_with_acl_option fuse: FUSE_ACLS
    + d1/new f 0640 0:0 1 system.posix_acl_access=HANDLE 'x'
    - d1/new f 0660 0:0 1 system.posix_acl_access=HANDLE 'x'
copy_up_of_xattrs overlay,fuse: PRIVATE
    + f1 f 0660 1000:1001 12 security.capability=HANDLE security.foo=x system.posix_acl_access=HANDLE trusted.t=tt user.low=lowval 'f1-from-ro2\n'
    - f1 f 0660 1000:1001 12 security.capability=HANDLE security.foo=x system.posix_acl_access=HANDLE trusted.overlay.zz=q trusted.t=tt user.low=lowval 'f1-from-ro2\n'
rename_logically_empty_dir overlay: MOVES
    + d1/sub/deep d 0755 0:0
    + d1/sub/deep/.wh.e f 0444 0:0 0
    - d1/sub/.wh.deep f 0444 0:0 0
    - d1/sub/deep2 d 0755 0:0
    - d1/sub/deep2/.wh.e f 0444 0:0 0
rename_logically_empty_dir fuse: MOVES
    + d1/sub d 0711 0:0
    + d1/sub/deep d 0755 0:0
    + d1/sub/deep/.wh.e f 0444 0:0 0
    - d1/sub d 2711 0:0
    - d1/sub/.wh.deep f 0444 0:0 0
    - d1/sub/deep2 d 0755 0:0
    - d1/sub/deep2/.wh.e f 0444 0:0 0
rename_file_between_dirs fuse: SETGID
    + d1/sub d 0711 0:0
    - d1/sub d 2711 0:0
rename_back_and_forth fuse: FUSE_RENAMES
    + .wh.g f 0444 0:0 0
rename_upper_file_over_and_delete fuse: FUSE_RESURRECTS
    - .wh.f1 f 0444 0:0 0
remount_append_branch overlay,fuse: BY_HAND
    + .wh..wh.aufs f 0444 0:0 0
    + .wh..wh.orph d 0700 0:0
    + .wh..wh.plnk d 0700 0:0
special_mode_bits fuse: SETGID
    + d1/sub/nd d 0755 0:0
    - d1/sub/nd d 2755 0:55
"""  # noqa: E501
"""OPERATION WAYS: REASON, and below it what differs."""


@pytest.mark.parametrize("way", METHODS)
@pytest.mark.parametrize("name", GOLDEN)
def test_an_operation_leaves_what_aufs_leaves(name: str, way: str, root_dir: str) -> None:
    bench = Bench(root_dir, METHODS[way], GOLDEN[name]["setup"] + (", busybox" if name == "exec_from_mount" else ""))
    with bench.mounted():
        for step in OPERATIONS[name].split(";"):
            if step.strip():
                bench.do(step.strip())
    ours, theirs = listing(bench.rw), [line(entry) for entry in GOLDEN[name]["rw_branch"] if is_content(entry["name"])]
    differs = sorted(f"+ {text}" for text in set(ours) - set(theirs)) + sorted(f"- {text}" for text in set(theirs) - set(ours))
    assert differs == differences().get((name, way), []), json.dumps(differs)
    assert_whiteouts_are_links(bench.rw)


def test_the_tables_name_every_operation_of_the_record() -> None:
    assert list(OPERATIONS) == list(GOLDEN)
    assert len(GOLDEN) == 109
    assert {name for name, _ in differences()} <= set(GOLDEN)


def differences() -> dict[tuple[str, str], list[str]]:
    """Read `TABLE`: what differs, by operation and way."""
    found, lines = {}, []
    for text in TABLE.strip().splitlines():
        if text.startswith("    "):
            words = text.strip().split(" ")  # before Linux 6.7 overlayfs refuses such a name, as fuse-overlayfs does
            lines.append(" ".join(word for word in words if IS_6_7 or not word.startswith("trusted.overlay.overlay.")))
            continue
        head, _, reason = text.partition(": ")
        assert globals()[reason]
        name, ways = head.split(" ")
        lines = []
        found.update({(name, way): lines for way in ways.split(",")})
    return found


class Bench:
    """The record's standard layers in a driver's home, and the words of `OPERATIONS`."""

    def __init__(self, home: str, method: Method, setup: str) -> None:
        self.home, self.driver, self.parents = home, Driver(method), ["ro1", "ro2"]
        self.rw, self.ro1, self.ro2 = (f"{home}/diff/{key}" for key in ("rw", "ro1", "ro2"))
        self.files: list[int] = []
        self.driver.storage_prepare(home, "ro2", [], {})
        self.driver.storage_prepare(home, "ro1", ["ro2"], {})
        standard_layers(self.ro1, self.ro2)
        special_layers(setup, self.ro1, self.ro2)
        for layer in (self.ro1, self.ro2):
            make_old(layer)
        self.driver.storage_seal(home, "ro2")
        self.driver.storage_seal(home, "ro1")
        self.driver.storage_prepare(home, "rw", self.parents, {})
        self.view = self.driver.storage_mounts(home, "rw", self.parents, readonly=False)

    @contextlib.contextmanager
    def mounted(self):
        self.mount()
        try:
            yield
        finally:
            self.release()
            self.unmount()

    def mount(self) -> None:
        self.driver.storage_before_mount(self.home, "rw", self.parents)
        views.attach(self.view)

    def unmount(self) -> None:
        views.detach(self.view)
        self.driver.storage_after_unmount(self.home, "rw")

    def do(self, step: str) -> None:
        may_fail, step = step.startswith("!"), step.removeprefix("!")
        word, *arguments = shlex.split(step.replace("\\n", "\\\\n"))
        arguments = [argument.replace("\\n", "\n") for argument in arguments]
        try:
            getattr(self, "as_" if word == "as" else word)(*arguments)
        except OSError:
            if not may_fail:
                raise

    def at(self, path: str) -> str:
        return f"{self.view.root}/{path}"

    # fmt: off
    # What a shell does.

    def rm(self, path): os.unlink(self.at(path))
    def rmtree(self, path): shutil.rmtree(self.at(path))
    def rmdir(self, path): os.rmdir(self.at(path))
    def mkdir(self, path): os.mkdir(self.at(path))
    def mv(self, old, new): os.rename(self.at(old), self.at(new))
    def link(self, old, new): os.link(self.at(old), self.at(new))
    def symlink(self, text, path): os.symlink(text, self.at(path))
    def chmod(self, path, mode): os.chmod(self.at(path), int(mode, 8))
    def chown(self, path, uid, gid): os.chown(self.at(path), int(uid), int(gid))
    def lchown(self, path, uid, gid): os.lchown(self.at(path), int(uid), int(gid))
    def utime(self, path): os.utime(self.at(path), (1_600_000_000, 1_600_000_000))
    def truncate(self, path, size): os.truncate(self.at(path), int(size))
    def stat(self, path): os.lstat(self.at(path))
    def list(self, path): os.listdir(self.at(path))
    def read(self, path): Path(self.at(path)).read_bytes()
    def write(self, path, text): Path(self.at(path)).write_text(text)
    def setx(self, path, name, value): os.setxattr(self.at(path), name, value.encode())
    def rmx(self, path, name): os.removexattr(self.at(path), name)
    def acl(self, path, kind): os.setxattr(self.at(path), f"system.posix_acl_{kind}", ACL)
    def setcap(self, path): os.setxattr(self.at(path), "security.capability", bytes.fromhex("0000000200200000" + 24 * "0"))
    def run(self, *command): subprocess.run(command, cwd=self.view.root, check=True, capture_output=True)
    # fmt: on

    def append(self, path, text):
        with open(self.at(path), "ab") as file:
            file.write(text.encode())

    def touch(self, path, how):
        os.close(os.open(self.at(path), os.O_RDWR if how == "+" else os.O_WRONLY | os.O_APPEND))

    def open(self, path, mode, text=""):
        before = os.umask(0)
        try:
            fd = os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, int(mode, 8))
        finally:
            os.umask(before)
        os.write(fd, text.encode())
        os.close(fd)

    def mknod(self, path, kind, major="0", minor="0"):
        bits, mode = {
            "p": (stat.S_IFIFO, 0o644),
            "c": (stat.S_IFCHR, 0o600),
            "b": (stat.S_IFBLK, 0o600),
            "f": (stat.S_IFREG, 0o600),
        }[kind]
        os.mknod(self.at(path), bits | mode, os.makedev(int(major), int(minor)))

    # What only a program does.

    def bind(self, path):  # a whole path may be longer than the 107 bytes of sockaddr_un
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(self.view.root):
            server.bind(path)

    def mv2(self, old, new, flags):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(-100, os.fsencode(self.at(old)), -100, os.fsencode(self.at(new)), int(flags)) < 0:
            raise OSError(ctypes.get_errno(), "renameat2")

    def hold(self, path, how):
        self.files.append(os.open(self.at(path), os.O_RDONLY if how == "r" else os.O_RDWR | os.O_CREAT, 0o644))

    def hold_dir(self, path):
        self.files.append(os.open(self.at(path), os.O_RDONLY | os.O_DIRECTORY))

    def held_write(self, text):
        os.write(self.files[-1], text.encode())

    def held_chmod(self, mode):
        os.fchmod(self.files[-1], int(mode, 8))

    def release(self):
        while self.files:
            os.close(self.files.pop())

    def map_then_write(self, path, text):
        with (
            open(self.at(path), "rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view,
            open(self.at(path), "r+b") as other,
        ):
            view[:3]
            other.write(text.encode())

    def map_write(self, path, text):
        with open(self.at(path), "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
            view[: len(text)] = text.encode()

    def names(self):
        for length in (200, 241, 242):
            self.write("n" * length, "x")
            self.rm("n" * length)

    def tmpfile(self, path):
        fd = os.open(self.view.root, os.O_TMPFILE | os.O_RDWR, 0o644)
        try:
            raise OSError("not linked: aufs answers EXDEV, others link it")
        finally:
            os.close(fd)

    def direct(self, path):
        os.close(os.open(self.at(path), os.O_RDONLY | os.O_DIRECT))

    def flock(self, path):
        with open(self.at(path), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)

    def allocate(self, path, size):
        with open(self.at(path), "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, int(size))

    def copy_range(self, source, target, size):
        with open(self.at(source), "rb") as old, open(self.at(target), "wb") as new:
            assert os.copy_file_range(old.fileno(), new.fileno(), int(size)) == int(size)

    def sendfile(self, source, target, size):
        with open(self.at(source), "rb") as old, open(self.at(target), "wb") as new:
            assert os.sendfile(new.fileno(), old.fileno(), 0, int(size)) == int(size)

    def sync(self, path):
        fd = os.open(self.at(path), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def as_(self, uid, *step):
        """Do a step as another user, in a child."""
        child = os.fork()
        if child == 0:
            os.chroot(self.view.root)  # the way to it is closed to others
            self.view = replace(self.view, root="")
            os.setgroups([])
            os.setresgid(int(uid), int(uid), int(uid))
            os.setresuid(int(uid), int(uid), int(uid))
            try:
                self.do(shlex.join(step))
            except OSError as error:
                os._exit(error.errno)
            os._exit(0)
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise OSError(status, "in the child")

    # What is done around the mount.

    def remount(self):
        self.unmount()
        self.mount()

    def readonly(self):
        self.unmount()
        view = self.view
        try:
            self.view = self.driver.storage_mounts(self.home, "rw", self.parents, readonly=True)
            views.attach(self.view)
        except BaseException:
            self.view = view
            raise

    def branch_write(self, path, text):
        Path(f"{self.rw}/{path}").write_text(text)

    def branch_mkdir(self, path):
        os.mkdir(f"{self.rw}/{path}")

    def on_top(self):
        """Make a layer of this one, and look at it through another."""
        self.unmount()
        self.driver.storage_seal(self.home, "rw")
        self.driver.storage_prepare(self.home, "rw2", ["rw", *self.parents], {})
        self.driver.storage_before_mount(self.home, "rw2", ["rw", *self.parents])
        view = self.driver.storage_mounts(self.home, "rw2", ["rw", *self.parents], readonly=False)
        views.attach(view)
        try:
            assert sorted(os.listdir(view.root)) == sorted(
                ["big", "d1", "empty", "f2", "fifo", "h1", "h2", "ln", "new", "null", "sparse", "suid"]
            )
            assert os.listdir(f"{view.root}/d1/sub") == ["k"]
        finally:
            views.detach(view)


def standard_layers(ro1: str, ro2: str) -> None:
    for folder in ("d1/sub/deep", "empty"):
        os.makedirs(f"{ro2}/{folder}")
    os.mkdir(f"{ro1}/d1")
    texts = {
        "f1": "f1-from-ro2\n", "f2": "f2-from-ro2\n", "d1/a": "d1/a\n", "d1/b": "d1/b\n", "d1/sub/c": "c\n",
        "d1/sub/deep/e": "e\n", "h1": "hard\n", "suid": "#!\n",
    }  # fmt: skip
    for path, text in texts.items():
        Path(f"{ro2}/{path}").write_text(text)
    Path(f"{ro1}/f2").write_text("f2-from-ro1\n")
    Path(f"{ro1}/d1/x").write_text("d1/x from ro1\n")
    Path(f"{ro2}/big").write_bytes(os.urandom(8 << 20))
    with open(f"{ro2}/sparse", "wb") as file:
        file.truncate(16 << 20)
        os.pwrite(file.fileno(), b"x" * 4096, 4 << 20)
    for name in ("h2", "d1/h3"):
        os.link(f"{ro2}/h1", f"{ro2}/{name}")
    os.symlink("f1", f"{ro2}/ln")
    os.mkfifo(f"{ro2}/fifo", 0o644)
    os.mknod(f"{ro2}/null", stat.S_IFCHR | 0o644, os.makedev(1, 3))
    os.chmod(f"{ro2}/suid", 0o4755)
    os.chmod(f"{ro2}/d1/sub", 0o2711)
    os.chmod(f"{ro2}/f1", 0o640)
    os.chown(f"{ro2}/f1", 1000, 1001)
    os.setxattr(f"{ro2}/f1", "user.low", b"lowval")
    for layer, name in ((ro1, "ro1"), (ro2, "ro2")):
        os.chmod(f"{layer}/d1", 0o750)
        os.chown(f"{layer}/d1", 1000, 1001)
        os.setxattr(f"{layer}/d1", "user.dirlow", b"from-" + name.encode())


def special_layers(setup: str, ro1: str, ro2: str) -> None:
    if "middle_layer" in setup or "RO1 has whiteouts" in setup:
        os.mkdir(f"{ro1}/d1/sub")
        Path(f"{ro1}/d1/sub/only_ro1").write_text("o\n")
        for name in (".wh.f1", ".wh.empty", "d1/.wh.a", "d1/sub/.wh..wh..opq"):
            whiteout(f"{ro1}/{name}")
    elif "busybox" in setup:
        shutil.copy("/bin/true", f"{ro2}/busybox")
    elif "many" in setup:
        os.mkdir(f"{ro2}/many")
        for number in range(12):
            Path(f"{ro2}/many/{number}").write_text("m")
    elif "RO1 contains" in setup:
        whiteout(f"{ro1}/{BASE}")
        os.mkdir(f"{ro1}/.wh..wh.plnk")
        os.mkdir(f"{ro1}/.wh..wh.orph")
    elif "secret" in setup:
        os.mkdir(f"{ro1}/p", 0o755)
        os.mkdir(f"{ro2}/p", 0o700)
        Path(f"{ro2}/p/secret").write_text("s\n")
    elif "posix ACL" in setup:
        os.setxattr(f"{ro2}/f1", "system.posix_acl_access", ACL)
        for name in ("trusted.t", "trusted.overlay.zz", "security.foo"):
            os.setxattr(f"{ro2}/f1", name, {"trusted.t": b"tt", "trusted.overlay.zz": b"q"}.get(name, b"x"))
        os.setxattr(f"{ro2}/f1", "security.capability", bytes.fromhex("0000000200200000" + 24 * "0"))
        os.setxattr(f"{ro1}/d1", "system.posix_acl_default", ACL_READ)
        os.setxattr(f"{ro1}/d1", "trusted.t", b"tt")
    elif ".wh.big = directory" in setup:
        Path(f"{ro1}/.wh.f1").write_text("not empty")
        os.mkdir(f"{ro1}/.wh.big")
        os.symlink("x", f"{ro1}/.wh.sparse")
        whiteout(f"{ro1}/.wh.f2")
        os.mknod(f"{ro1}/suid", stat.S_IFCHR, 0)
        os.makedirs(f"{ro1}/empty/.wh..wh..opq")
    elif "root has an opaque" in setup:
        whiteout(f"{ro1}/{OPAQUE}")
    elif "RO1 file over" in setup:
        Path(f"{ro1}/cf").write_text("file over dir")
        os.mkdir(f"{ro2}/cf")
        os.mkdir(f"{ro1}/cd")
        Path(f"{ro1}/cd/y").write_text("y")
        Path(f"{ro2}/cd").write_text("a file")
        os.symlink("d1", f"{ro1}/cl")
        os.mkdir(f"{ro2}/cl")
        Path(f"{ro1}/tri").write_text("f")
        os.mkdir(f"{ro2}/tri")


def whiteout(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o444))


def make_old(layer: str) -> None:
    for folder, folders, files in os.walk(layer):
        for name in folders + files:
            os.utime(f"{folder}/{name}", (LONG_AGO_S, LONG_AGO_S), follow_symlinks=False)


def is_content(name: str) -> bool:
    """Whether an entry is compared: what lies in the bookkeeping directories isn't, nor in a branch that lies in a branch."""
    return name in BOOKKEEPING or not any(part in BOOKKEEPING for part in name.split("/"))


def listing(root: str) -> list[str]:
    found = []
    for folder, folders, files in os.walk(root):
        names = ([""] if folder == root else []) + folders + files
        for path in (f"{folder}/{name}".rstrip("/") for name in names):
            relative = os.path.relpath(path, root)
            if not is_content(relative):
                continue
            status = os.lstat(path)
            entry = {"name": relative, "mode": f"{stat.S_IMODE(status.st_mode):04o}", "owner": f"{status.st_uid}:{status.st_gid}"}
            entry["type"] = {"-": "f"}.get(kind := stat.filemode(status.st_mode)[0], kind)
            entry["xattr"] = {
                name: shown(os.getxattr(path, name, follow_symlinks=False)) for name in os.listxattr(path, follow_symlinks=False)
            }
            if entry["type"] == "f":
                entry["size"] = status.st_size
                if 0 < status.st_size <= 64:
                    entry["content"] = Path(path).read_text()
            elif entry["type"] == "l":
                entry["target"] = os.readlink(path)
            elif entry["type"] in "bc":
                entry["rdev"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
            found.append(line(entry))
    return found


def shown(value: bytes) -> str:
    """Write an xattr's value as the record does."""
    if not value:
        return "0x"
    return value.decode() if value.isascii() and value.decode().isprintable() else "HANDLE"


def line(entry: dict) -> str:
    words = [entry["name"], entry["type"], entry["mode"], entry["owner"]]
    words += [str(entry[name]) for name in ("size", "target", "rdev") if name in entry]
    words += [f"{name}={value}" for name, value in sorted(entry.get("xattr", {}).items())]
    words += [repr(entry["content"])] if "content" in entry else []
    return " ".join(words)


def assert_whiteouts_are_links(root: str) -> None:
    base = os.lstat(f"{root}/{BASE}").st_ino
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in BOOKKEEPING]
        for name in files:
            if name.startswith(PREFIX):
                assert os.lstat(f"{folder}/{name}").st_ino == base, name
