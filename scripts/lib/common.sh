# What every script here starts with. Sourced, never run. It sets:
#   ROOT   the checkout, which is also the current directory
# shellcheck shell=bash
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT" || exit
export PYTHONDONTWRITEBYTECODE=1
# Every server that these scripts start listens on 127.0.0.1: no proxy may stand in between.
export no_proxy="${no_proxy:+$no_proxy,}127.0.0.1,localhost"
export NO_PROXY="$no_proxy"

say() { printf '== %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# as_root COMMAND…: through sudo only where it is needed.
as_root() {
    if [ "$EUID" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this step needs root, and there is no sudo: $*"
    fi
}

# quietly LOG COMMAND…: its output goes to build/LOG.log, and to the terminal only if it fails.
quietly() {
    local log=$ROOT/build/$1.log
    shift
    "$@" </dev/null >"$log" 2>&1 && return
    tail -n 40 "$log" >&2
    die "failed: $* (all of its output: $log)"
}

[ -e build ] || mkdir build
[ -w build ] || die "$ROOT/build is not writable for $(id -un): remove it, or run this as its owner"
