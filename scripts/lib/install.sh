# Installs what is missing on Debian 12 and 13, and nothing that is there. Sourced after common.sh.
#   choose_postgres      sets and exports PG_CONFIG, the one Postgres that every later step uses
#   need PACKAGE…        installs the packages of the list that are missing
#   need_pg_cron         installs pg_cron for PG_CONFIG's Postgres, where that is Debian's
#   need_elasticmq       brings a Java runtime, and the jars of two ElasticMQs (test/elasticmq*.sha256) to build/elasticmq*
#   make_venv            sets PYTHON, a private Python under build/ with test/requirements.txt
#   make_venv_query      brings a moto that knows only the Query protocol (test/requirements-query.txt) to build/venv-query
# shellcheck shell=bash

# shellcheck disable=SC2034 # the scripts name them
BUILD_PACKAGES=(g++ make pkg-config libcurl4-openssl-dev libssl-dev zlib1g-dev nlohmann-json3-dev libpugixml-dev python3-venv)
# shellcheck disable=SC2034
UNIT_TEST_PACKAGES=(cmake ninja-build libgtest-dev)

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# What a Java installs runs Java, which leaves its statistics in /tmp.
APT_GET=(env DEBIAN_FRONTEND=noninteractive JAVA_TOOL_OPTIONS=-XX:-UsePerfData apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
apt_lists_are_fresh=

# Once in a run. One unreachable third-party source must not stop us; if it is the one that matters, the install fails.
apt_update() {
    [ -z "$apt_lists_are_fresh" ] || return 0
    as_root "${APT_GET[@]}" update </dev/null >build/apt-update.log 2>&1 || say "apt-get update had errors, going on"
    apt_lists_are_fresh=yes
}

apt_install() {
    command -v apt-get >/dev/null || die "these scripts install with apt-get; elsewhere, install by hand: $*"
    say "installing: $*"
    apt_update
    quietly apt-install as_root "${APT_GET[@]}" install -y --no-install-recommends "$@"
}

need() {
    local package missing=()
    for package; do
        is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

# The Debian package of a server makes and starts a cluster "main" when it is the first of its version. Nobody asked
# for that cluster, so a drop-in says no, only for as long as the installation takes.
install_server_without_cluster() (
    need postgresql-common
    dropin=/etc/postgresql-common/createcluster.d/sqs-ingest-scripts.conf
    trap 'as_root rm -f "$dropin"' EXIT
    as_root mkdir -p "${dropin%/*}"
    echo 'create_main_cluster = false' | as_root tee "$dropin" >/dev/null
    need "$@"
)

can_build_and_run() { [ -x "$("$1" --bindir)/postgres" ] && [ -f "$("$1" --pgxs)" ] && [ -f "$("$1" --includedir-server)/postgres.h" ]; }

newest() { printf '%s\n' "$@" | sort -V | tail -n 1; }

# PG_CONFIG from the environment; else the newest Debian Postgres that has its server headers; else the headers for
# the newest server; else the release's own Postgres.
choose_postgres() {
    local candidate complete=() version
    if [ -n "${PG_CONFIG:-}" ]; then
        can_build_and_run "$PG_CONFIG" || die "PG_CONFIG=$PG_CONFIG: no server, or no server headers, beside it"
        export PG_CONFIG
        return
    fi
    for candidate in /usr/lib/postgresql/*/bin/pg_config; do
        if [ -x "$candidate" ] && can_build_and_run "$candidate"; then complete+=("$candidate"); fi
    done
    if [ ${#complete[@]} -gt 0 ]; then
        PG_CONFIG=$(newest "${complete[@]}")
    else
        version=$(newest /usr/lib/postgresql/*/bin/postgres)
        if [ -x "$version" ]; then
            version=${version#/usr/lib/postgresql/}
            version=${version%%/*}
        else
            apt_update
            version=$(apt-cache depends postgresql | sed -n 's/^ *Depends: postgresql-\([0-9]\+\)$/\1/p')
            [ -n "$version" ] || die "apt knows no package postgresql"
        fi
        install_server_without_cluster "postgresql-$version" "postgresql-server-dev-$version"
        PG_CONFIG=/usr/lib/postgresql/$version/bin/pg_config
    fi
    export PG_CONFIG
}

need_pg_cron() {
    case $PG_CONFIG in
    /usr/lib/postgresql/*/bin/pg_config) need "postgresql-$(cut -d/ -f5 <<<"$PG_CONFIG")-cron" ;;
    esac
}

# need_jars NAME: the jars of test/NAME.sha256, with these checksums, under build/NAME. MAVEN_REPOSITORY=… names a mirror.
need_jars() {
    local list=$ROOT/test/$1.sha256 jars=$ROOT/build/$1 sum jar
    local repository=${MAVEN_REPOSITORY:-https://repo1.maven.org/maven2}
    command -v java >/dev/null || need default-jre-headless
    mkdir -p "$jars"
    if (cd "$jars" && sha256sum --quiet -c "$list") >/dev/null 2>&1; then return; fi
    need curl ca-certificates
    say "downloading ElasticMQ into build/$1"
    while read -r sum jar; do
        if [ "$(sha256sum "$jars/$jar" 2>/dev/null | cut -d' ' -f1)" = "$sum" ]; then continue; fi
        quietly elasticmq curl -fsSL --retry 3 --create-dirs -o "$jars/$jar" "$repository/$jar"
    done <"$list"
    (cd "$jars" && sha256sum --quiet -c "$list") || die "a jar of ElasticMQ is not what it should be"
}

need_elasticmq() {
    need_jars elasticmq
    need_jars elasticmq-query
}

# make_venv_of REQUIREMENTS VENV: build/VENV has exactly what test/REQUIREMENTS says.
make_venv_of() {
    local requirements=test/$1 venv=$ROOT/build/$2
    if "$venv/bin/python" -c '' 2>/dev/null && cmp -s "$requirements" "$venv/requirements.txt"; then return; fi
    say "installing the Python packages of $requirements into build/$2"
    rm -rf "$venv"
    quietly venv /usr/bin/python3 -m venv "$venv"
    quietly pip "$venv/bin/python" -m pip install --disable-pip-version-check --only-binary :all: -r "$requirements"
    cp "$requirements" "$venv/requirements.txt"
}

make_venv() {
    PYTHON=$ROOT/build/venv/bin/python
    make_venv_of requirements.txt venv
}

make_venv_query() { make_venv_of requirements-query.txt venv-query; }
