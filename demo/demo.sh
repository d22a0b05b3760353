#!/bin/sh
# What Lamina promises, shown on each of its storage drivers: run by `make demo`, as root.
#
# A line that begins with $ is what you would type. `sees` and `lacks` check what it printed, and the first thing that isn't as
# promised ends the demonstration with an error. All of it happens in a directory of its own, of which nothing is left.
set -eu
LAMINA_ROOT=$(mktemp -d "${TMPDIR:-/tmp}/lamina-demo-XXXXXX")
LAMINA_NETWORK=none  # nothing here needs one, and so the machine's links and rules stay as they are
export LAMINA_ROOT LAMINA_NETWORK
unset LAMINA_RUN_DIR LAMINA_STORAGE_DRIVER LAMINA_CONFIG
shared=$(mktemp -d "${TMPDIR:-/tmp}/lamina-host-XXXXXX")

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
try() { printf '%s$ %s%s\n' "$bold" "$1" "$plain"; out=$(eval "$1" 2>&1) || fail "$out"; printf '%s' "${out:+$out
}"; }
sees() { for text; do case $out in *"$text"*) ;; *) fail "'$text' is not in the output" ;; esac; done; }
lacks() { for text; do case $out in *"$text"*) fail "'$text' is in the output" ;; esac; done; }
fail() { printf 'demo: FAILED: %s\n' "$*" >&2; exit 1; }
contents() { (cd "$1" && find . -printf '%P %y %m %U %G %T@ %l\n' -type f -exec sha256sum {} +) | sort | sha256sum; }
processes() { env -u LAMINA_ROOT grep -lzs "^LAMINA_ROOT=$LAMINA_ROOT" /proc/[0-9]*/environ || true; }
clean_up() { lamina ps -aq | xargs -r lamina rm -f >/dev/null 2>&1; rm -rf --one-file-system "$LAMINA_ROOT" "$shared"; }
trap 'code=$?; clean_up || true; exit $code' EXIT
trap 'exit 130' HUP INT PIPE TERM

title "An image, made of this machine's own programs, and the drivers that can run it"
try "lamina image bootstrap busybox"
try "lamina images"; sees busybox
try "lamina driver ls"; sees overlay aufs vfs
layer=$(lamina image inspect --format '{{ index .RootFS.Layers 0 }}' busybox)
layer=${layer#sha256:}

for driver in overlay aufs vfs; do
    case $driver in overlay) below=overlay/$layer/diff ;; aufs) below=aufs/diff/$layer ;; vfs) below=vfs/dir/$layer ;; esac
    title "$driver: a container, and what it is"
    try "lamina -s $driver run -d --name on-$driver busybox sleep 1000"
    before=$(contents "$LAMINA_ROOT/$below")
    try "lamina inspect --format '{{ .State.Pid }}' on-$driver"; pid=$out
    try "for kind in mnt uts ipc pid net cgroup user; do readlink /proc/$pid/ns/\$kind; done"
    for kind in mnt uts ipc pid net cgroup; do lacks "$(readlink /proc/self/ns/$kind)"; done
    sees "$(readlink /proc/self/ns/user)"
    try "lamina exec on-$driver sh -c 'for kind in mnt uts ipc pid net cgroup user; do readlink /proc/self/ns/\$kind; done'"
    for kind in mnt uts ipc pid net cgroup user; do sees "$(readlink /proc/$pid/ns/$kind)"; done
    try "lamina exec on-$driver ps"; sees "sleep 1000"

    title "$driver: the container changes files, the image keeps its own"
    try "lamina exec on-$driver sh -c 'echo hello > /new; echo me:x:1000:1000::/:/bin/sh >> /etc/passwd; rm -r /home'"
    try "lamina diff on-$driver"; sees "A /new" "C /etc/passwd" "D /home"
    try "lamina -s $driver run --rm busybox ls /"; sees home; lacks new
    [ "$(contents "$LAMINA_ROOT/$below")" = "$before" ] || fail "the image's layer in $below has changed"

    title "$driver: the changes become an image of one layer more, which runs on every driver"
    try "lamina commit on-$driver changed-on-$driver"
    try "lamina image inspect --format '{{ json .RootFS.Layers }}' changed-on-$driver"; sees "[\"sha256:$layer\",\"sha256:"
    for other in overlay aufs vfs; do try "lamina -s $other run --rm changed-on-$driver cat /new"; sees hello; done

    title "$driver: a directory of the host, which the host doesn't see mounted and a commit doesn't keep"
    try "lamina -s $driver run -d --name with-volume -v $shared:/test busybox sh -c 'echo from $driver > /test/$driver; sleep 1000'"
    try "until [ -s $shared/$driver ]; do sleep 0.1; done; cat $shared/$driver"; sees "from $driver"
    try "lamina inspect --format '{{ .GraphDriver.Data.MergedDir }}' with-volume"; merged=$out
    try "ls -A $merged/test"; lacks "$driver"
    try "grep $merged/test /proc/self/mountinfo || echo no such mount"; sees "no such mount"
    try "lamina commit with-volume without-volume"
    try "lamina -s $driver run --rm without-volume ls -A /test"; lacks "$driver"
    try "lamina rm -f with-volume"
done

title "Three containers of one image at the same time, on three drivers"
try "lamina ps"; sees on-overlay on-aufs on-vfs
try "lamina inspect --format '{{ .Name }}: {{ .Driver }} at {{ .GraphDriver.Data.MergedDir }}' on-overlay on-aufs on-vfs"
try "lamina system df"

title "Nothing is left"
try "lamina rm -f on-overlay on-aufs on-vfs"
try "grep $LAMINA_ROOT /proc/self/mountinfo || echo no mounts"; sees "no mounts"
try "find $LAMINA_ROOT/containers -mindepth 1"; lacks containers
[ -z "$(processes)" ] || fail "processes are left: $(processes)"
printf '\nAll of it was as promised, on overlay, aufs and vfs.\n'
