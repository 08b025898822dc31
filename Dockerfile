# PostgreSQL with sqs_ingest: the official image, the extension, and nothing of what built it.
#
#   docker build -t sqs_ingest .
#   docker run -e POSTGRES_PASSWORD=… -e AWS_ACCESS_KEY_ID=… -e AWS_SECRET_ACCESS_KEY=… \
#     -v data:/var/lib/postgresql/data -v keyring:/var/lib/sqs_ingest \
#     sqs_ingest -c sqs_ingest.queue_url=https://sqs.us-east-1.amazonaws.com/123456789012/login-queue
#
# Then, in your database: CREATE EXTENSION sqs_ingest; SELECT sqs_ingest_start();
# PG_MAJOR is 15 to 18, DEBIAN is bookworm or trixie. From 18 on the data volume is mounted at /var/lib/postgresql.
ARG PG_MAJOR=17
ARG DEBIAN=trixie

FROM postgres:${PG_MAJOR}-${DEBIAN} AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        g++ make "postgresql-server-dev-$PG_MAJOR" libcurl4-openssl-dev libssl-dev zlib1g-dev nlohmann-json3-dev libpugixml-dev
WORKDIR /sqs_ingest
COPY Makefile sqs_ingest.control ./
COPY sql sql
COPY src src
RUN pg_config=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config && \
    make -j"$(nproc)" PG_CONFIG="$pg_config" && \
    make install PG_CONFIG="$pg_config" DESTDIR=/out && \
    strip --strip-unneeded "/out$("$pg_config" --pkglibdir)/sqs_ingest.so"

FROM postgres:${PG_MAJOR}-${DEBIAN}
# libcurl only recommends the certificates, and without them no HTTPS request succeeds.
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates libcurl4 libpugixml1v5 libssl3 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /out/ /
# initdb copies the sample, so new clusters preload the library, whatever options `docker run` is given. A data volume
# that is older than this image needs these two lines in its postgresql.conf.
# The masking keys have a volume of their own: in the data directory, every base backup would carry them.
RUN install -d -o postgres -g postgres -m 0700 /var/lib/sqs_ingest && \
    printf '\n%s\n' "shared_preload_libraries = 'sqs_ingest'" \
        "sqs_ingest.mask_keyring = '/var/lib/sqs_ingest/keyring'" >>/usr/share/postgresql/postgresql.conf.sample
VOLUME /var/lib/sqs_ingest

# Only whether the server answers. A pipeline that is stuck (no queue, no credentials, a broken table) heals by itself
# or needs a person; an orchestrator that restarted the database for it would make an outage out of it.
# Over TCP, because the entrypoint's temporary server, while it initializes, answers on the socket only.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD pg_isready -q -h 127.0.0.1 -U "${POSTGRES_USER:-postgres}" -d postgres
