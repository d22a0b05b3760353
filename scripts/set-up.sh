#!/bin/sh
# Set this clone up: `set-up.sh demo` for running Lamina, `set-up.sh test` for working on it too, `set-up.sh vm` for its tests on
# Debian's own kernel as well.
#
# Looks at what is there and adds what is missing, so that the second time costs nothing. System packages come by apt and only as
# root; Python's go into .venv. Nothing outside this directory is changed otherwise.
set -eu
cd "$(dirname "$0")/.."
purpose=$1
python=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin
unset PYTHONPATH PYTHONHOME || true

say() { echo "set-up: $*"; }

# What is needed, as PROGRAM:PACKAGE of Debian 12.
needed="busybox:busybox-static fuse-overlayfs:fuse-overlayfs fusermount3:fuse3"
case $purpose in
test | vm)
    needed="$needed mount:mount unshare:util-linux ps:procps script:bsdutils tar:tar gzip:gzip bzip2:bzip2 xz:xz-utils zstd:zstd setfacl:acl setfattr:attr mkfs.ext4:e2fsprogs"
    needed="$needed mkfs.btrfs:btrfs-progs mkfs.xfs:xfsprogs skopeo:skopeo umoci:umoci strace:strace ip:iproute2 nft:nftables docker-registry:docker-registry openssl:openssl git:git wget:wget"
    ;;
esac
if [ "$purpose" = vm ]; then
    needed="$needed qemu-system-x86_64:qemu-system-x86 depmod:kmod dpkg-deb:dpkg apparmor_parser:apparmor"
    PATH=$PATH:/usr/libexec:/usr/lib/qemu # where Debian puts virtiofsd, which came with qemu until Debian 12
    apt-cache show virtiofsd >/dev/null 2>&1 && needed="$needed virtiofsd:virtiofsd"
fi
packages=
for pair in $needed; do
    command -v "${pair%%:*}" >/dev/null || packages="$packages ${pair##*:}"
done
command -v "$python" >/dev/null || { say "'$python' is not installed; Lamina needs Python 3.11 or newer" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { say "$("$python" --version) is too old; Lamina needs Python 3.11 or newer" >&2; exit 1; }
"$python" -c 'import ensurepip, sqlite3' 2>/dev/null || packages="$packages python3-venv"

if [ -n "$packages" ]; then
    if [ "$(id -u)" != 0 ]; then
        say "not root, so not installed:$packages" >&2
    elif ! command -v apt-get >/dev/null; then
        say "no apt-get here; install by hand what Debian calls:$packages" >&2
    else
        say "apt-get install$packages"
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086 # a list of words
        install() { apt-get -qq install -y --no-install-recommends $packages </dev/null; }
        log=$(mktemp)
        if ! { install || { apt-get -qq update && install; }; } >"$log" 2>&1; then
            cat "$log" >&2
            say "apt-get could not install all of them; what needs them will fail" >&2
        fi
        rm -f "$log"
    fi
fi

# The environment names the place it was made for and what was installed, and is made anew if either has changed.
case $purpose in test | vm) extras='[dev]' ;; *) extras= ;; esac
wanted="$PWD $(cksum <pyproject.toml) $("$python" --version)"
stamp=.venv/set-up-for
have=$(cat "$stamp" 2>/dev/null || true)
if [ "$have" != "$wanted [dev]" ] && [ "$have" != "$wanted $extras" ]; then
    say "making .venv with $("$python" --version)"
    case $have in "$wanted"*) ;; *) "$python" -m venv --clear .venv ;; esac
    say "pip install -e .$extras"
    # an older one makes a program that imports re: 2 ms of each command
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25' </dev/null
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras" </dev/null
    .venv/bin/python -m pip uninstall --quiet --yes setuptools # where Python brings it still: each start would read its .pth
    echo "$wanted $extras" >"$stamp"
fi

# What the tutorial's application needs, for tests that have no network.
wheels=.venv/tutorial-wheels
if [ "$purpose" != demo ] && ! [ -e "$wheels/complete" ]; then
    say "pip download -r tests/data/tutorial/requirements.txt"
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --only-binary :all: --dest "$wheels" -r tests/data/tutorial/requirements.txt </dev/null
    touch "$wheels/complete"
fi

# unpack PLACE PACKAGE…: what is in packages of Debian, which are not installed.
unpack() {
    mkdir -p "$1"
    (cd "$1" && shift && { apt-get -qq download "$@" || { apt-get -qq update && apt-get -qq download "$@"; }; }) 2>/dev/null ||
        { say "not all of these could be downloaded: $*" >&2; exit 1; }
    for package in "$1"/*.deb; do
        dpkg-deb -x "$package" "$1"
        rm "$package"
    done
}

# Debian's kernel, unpacked and not installed: .venv/vm/PACKAGE/{boot,lib}.
if [ "$purpose" = vm ] && ! ls .venv/vm/*/lib/modules/*/modules.dep >/dev/null 2>&1; then
    metapackage=linux-image-cloud-amd64
    find_kernel() { kernel=$(apt-cache depends "$metapackage" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1); [ -n "$kernel" ]; }
    find_kernel || { apt-get -qq update; find_kernel; } || { say "apt-get knows no '$metapackage'" >&2; exit 1; }
    say "apt-get download $kernel"
    place=.venv/vm/$kernel
    unpack "$place" "$kernel"
    depmod -b "$place" "${kernel#linux-image-}"
fi

# And the main part of Debian's SELinux policy, with tests/vm/container.cil: .venv/vm/selinux/policy, and the contexts beside it.
selinux=.venv/vm/selinux
if [ "$purpose" = vm ] && ! [ "$selinux/policy" -nt tests/vm/container.cil ]; then
    say "apt-get download selinux-policy-default"
    rm -rf "$selinux"
    unpack "$selinux" selinux-policy-default policycoreutils secilc
    for module in base unconfined; do
        bunzip2 <"$selinux/usr/share/selinux/default/$module.pp.bz2" >"$selinux/$module.pp"
        "$selinux/usr/libexec/selinux/hll/pp" "$selinux/$module.pp" "$selinux/$module.cil"
    done
    sed -i '/^(selinuxuser sddm /d' "$selinux/base.cil" # of a module that isn't here
    echo "SELINUXTYPE=default" >"$selinux/etc/selinux/config"
    "$selinux/usr/bin/secilc" -M true -c 33 -o "$selinux/policy" -f /dev/null \
        "$selinux/base.cil" "$selinux/unconfined.cil" tests/vm/container.cil
fi
