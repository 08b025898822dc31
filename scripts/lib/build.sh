# Builds the extension and installs it into the directories of PG_CONFIG's Postgres. Sourced after install.sh.
# shellcheck shell=bash

# build_extension [MAKE ARGUMENT…]: objects made for one Postgres are never linked into another's extension.
build_extension() {
    local version
    version="$PG_CONFIG $("$PG_CONFIG" --version)"
    if [ "$(cat build/postgres-version 2>/dev/null)" != "$version" ]; then
        make -s clean PG_CONFIG="$PG_CONFIG"
        printf '%s\n' "$version" >build/postgres-version
    fi
    make -s -j"$(nproc)" PG_CONFIG="$PG_CONFIG" "$@"
}

install_extension() { as_root make -s install PG_CONFIG="$PG_CONFIG" "$@"; }
