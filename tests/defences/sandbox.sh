#!/bin/sh
# Run a command on a copy of this machine's files: `sandbox.sh CHANGED COMMAND…`, in the work tree, as root.
#
# The root directory is an overlay of the machine's, whose upper layer is in memory and gone at the end, so that an attack which gets
# through writes to nothing that is kept. What lies in CHANGED replaces files of the work tree, for the command and all that it starts.
# In a mount and a PID namespace of its own: whatever the command leaves running or mounted ends with it. Kernel settings are not
# copied, so what would write them is not for this.
set -eu
if [ "${SANDBOX:-}" = "" ]; then
    SANDBOX=1 exec unshare --mount --pid --fork --kill-child "$0" "$@"
fi
unset SANDBOX
changed=$1 top=$PWD place=/mnt
shift
mount -t tmpfs -o size=8g tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
mount -t proc -o nosuid,nodev,noexec proc "$place/root/proc"
mount --rbind /sys "$place/root/sys"
mount --rbind /dev "$place/root/dev"
[ -e "$place/root$top/pyproject.toml" ] || { echo "$0: '$top' must be on the root file system" >&2; exit 125; }
cp -r "$changed/." "$place/root$top/"
cd "$place/root"
pivot_root . .
umount -l .
cd "$top"
"$@"
exit $? # and not the last command, which the shell would become: process 1 reaps whom others leave
