# Bare Debian roots under /var/tmp, and commands in them. Sourced after common.sh; needs root, Linux namespaces and
# debootstrap.
#   WORK                     a fresh directory for the roots; removed at exit, with whatever still runs in them
#   make_root SUITE ROOT     a bare root with this machine's Debian mirror, apt's Acquire settings and resolv.conf
#   in_root ROOT COMMAND…    runs COMMAND in it, with environment=(…) and nothing else; what it starts ends with it
# The bare root is kept in /var/tmp as a tar file, so that a second run is quick: delete it to start from today's packages.
# shellcheck shell=bash
[ "$EUID" -eq 0 ] || die "debootstrap and chroot need root"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"

environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root)
WORK=$(mktemp -d /var/tmp/sqs-ingest-root.XXXXXX)
chmod 755 "$WORK"
namespace=

# All mounts are made in a namespace of its own: none of them is in the tree that is removed here.
# shellcheck disable=SC2317 # the traps reach it
remove_roots() {
    trap '' INT TERM HUP
    [ -z "$namespace" ] || { kill -KILL "$namespace" && wait "$namespace"; } 2>/dev/null || true
    rm -rf --one-file-system "$WORK" || { sleep 2 && rm -rf --one-file-system "$WORK"; }
}
trap remove_roots EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The address from which this machine's apt takes the archive with the given label ("Debian", "Debian-Security").
# shellcheck disable=SC2016 # for apt to expand
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Label: $1" | sort -u | head -n 1; }

# The lines of sources.list for a suite.
sources() {
    local archive security
    archive=$(mirror Debian)
    security=$(mirror Debian-Security)
    [ -n "$archive" ] || die "this machine's apt has no Debian archive (or apt-get update has never run)"
    printf '%s\n' "deb $archive $1 main" "deb $archive $1-updates main" ${security:+"deb $security $1-security main"}
}

make_root() {
    local suite=$1 root=$2 bare=/var/tmp/sqs-ingest-root-$1.tar
    mkdir "$root"
    if [ ! -f "$bare" ]; then
        say "debootstrap $suite"
        debootstrap --variant=minbase "$suite" "$root" "$(mirror Debian)" >"$WORK/log" 2>&1 ||
            { tail -n 20 "$WORK/log" >&2 && die "debootstrap failed"; }
        tar -C "$root" -cf "$bare.$$" . && mv "$bare.$$" "$bare"
    else
        tar -C "$root" -xf "$bare"
    fi
    sources "$suite" >"$root/etc/apt/sources.list"
    apt-config dump | grep '^Acquire::' >"$root/etc/apt/apt.conf.d/90host" || true
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    echo "127.0.0.1 localhost $(hostname)" >"$root/etc/hosts"
}

# enclosed ROOT SCRIPT ARGUMENT…: SCRIPT (bash, with $root) is pid 1 of a pid namespace: when it ends, all it started ends.
# shellcheck disable=SC2016 # for the shell inside
mounts='
    set -euo pipefail
    root=$1
    shift
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
'
enclosed() {
    local root=$1 script=$2 status=0
    shift 2
    env -i "${environment[@]}" unshare --mount --propagation private --pid --fork --kill-child \
        bash -c "$mounts$script" inside "$root" "$@" </dev/null &
    namespace=$!
    wait "$namespace" || status=$?
    namespace=
    return "$status"
}

# shellcheck disable=SC2016 # for the shell inside
in_root() { enclosed "$1" 'chroot "$root" "$@"; exit' "${@:2}"; }

# quietly_in_root ROOT COMMAND…: its output appears only if it fails.
quietly_in_root() {
    in_root "$@" >"$WORK/log" 2>&1 || { tail -n 40 "$WORK/log" >&2 && die "failed in the root: ${*:2}"; }
}
