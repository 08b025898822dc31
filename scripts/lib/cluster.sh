# A throwaway Postgres: its data, socket and log are in one fresh directory under /tmp, and it knows no other cluster.
# Sourced after install.sh. The server runs as the user `postgres` when we are root, which Postgres refuses to be.
#   make_cluster             initdb; sets CLUSTER (its directory), PGHOST, PGPORT, PGUSER; the caller traps remove_cluster
#   start_cluster SETTING…   appends the lines to postgresql.conf and starts the server, with test credentials for AWS
#   remove_cluster           stops the server and removes the directory; safe at any moment, and twice
# Who may enter the directory (its owner, and root) connects through the socket without a password; over TCP on
# 127.0.0.1 the password in $CLUSTER/password is needed.
# shellcheck shell=bash
CLUSTER=
export PGHOST PGPORT PGUSER

# on_server COMMAND…: a program of the server, as its user, with an environment that is said here in full.
on_server() {
    local who=() program
    program=$("$PG_CONFIG" --bindir)/$1
    shift
    if [ "$EUID" -eq 0 ]; then who=(setpriv --reuid=postgres --regid=postgres --init-groups --); fi
    (cd / && exec "${who[@]}" env -i PATH="$PATH" HOME="$CLUSTER" LANG=C.UTF-8 TZ=UTC AWS_ACCESS_KEY_ID=test \
        AWS_SECRET_ACCESS_KEY=test AWS_EC2_METADATA_DISABLED=true "$program" "$@" </dev/null)
}

make_cluster() {
    if [ "$EUID" -eq 0 ] && ! id postgres >/dev/null 2>&1; then
        die "Postgres does not run as root and there is no user postgres: make one, or run this as another user"
    fi
    CLUSTER=$(mktemp -d /tmp/sqs-ingest.XXXXXX)
    (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$CLUSTER/password")
    if [ "$EUID" -eq 0 ]; then chown -R postgres:postgres "$CLUSTER"; fi
    PGHOST=$CLUSTER
    PGUSER=postgres
    PGPORT=$(/usr/bin/python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    on_server initdb --no-sync -D "$CLUSTER/data" -U "$PGUSER" --pwfile="$CLUSTER/password" -E UTF8 \
        --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 >"build/initdb.log" 2>&1 ||
        { cat build/initdb.log >&2 && die "initdb failed"; }
}

start_cluster() {
    {
        printf '%s\n' "listen_addresses = '127.0.0.1'" "port = $PGPORT" "unix_socket_directories = '$CLUSTER'"
        printf '%s\n' "shared_preload_libraries = 'sqs_ingest'" "$@"
    } >>"$CLUSTER/data/postgresql.conf"
    on_server pg_ctl -D "$CLUSTER/data" -l "$CLUSTER/log" -s -w -t 60 start ||
        { tail -n 30 "$CLUSTER/log" >&2 && die "the throwaway Postgres did not start"; }
}

remove_cluster() {
    [ -n "$CLUSTER" ] || return 0
    local pid
    if pid=$(head -n 1 "$CLUSTER/data/postmaster.pid" 2>/dev/null); then
        on_server pg_ctl -D "$CLUSTER/data" -s -m fast -t 30 stop ||
            on_server pg_ctl -D "$CLUSTER/data" -s -m immediate -t 10 stop || kill -KILL "$pid" || true
    fi
    rm -rf "$CLUSTER"
    CLUSTER=
}

# run_psql ARGUMENT…: psql on the throwaway cluster, without the caller's ~/.psqlrc and pager.
run_psql() { "$("$PG_CONFIG" --bindir)/psql" -X -v ON_ERROR_STOP=1 -P pager=off "$@" </dev/null; }
