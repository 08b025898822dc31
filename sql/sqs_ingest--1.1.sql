-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION sqs_ingest" to load this file. \quit

-- No rows here: they would break pg_restore. sqs_ingest_start() makes the built-in pipeline.

------------------------------------------------------------------------------------------------------------------------
-- tables

CREATE TABLE @extschema@.sqs_ingest_pipeline (
    name text PRIMARY KEY CHECK (pg_catalog.octet_length(name) BETWEEN 1 AND 63),
    owner pg_catalog.regrole NOT NULL,
    queue_url text,
    target text NOT NULL,
    columns jsonb NOT NULL,
    mask_method text NOT NULL,
    workers integer NOT NULL DEFAULT 1 CHECK (workers BETWEEN 1 AND 16),
    dead_letter_retention interval
        CHECK (dead_letter_retention > interval '0' AND dead_letter_retention <= interval '100 years'),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    endpoint_url text,
    region text,
    profile text,
    role_arn text,
    external_id text,
    protocol text NOT NULL DEFAULT 'auto' CHECK (protocol IN ('auto', 'json', 'query')),
    max_receivers integer NOT NULL DEFAULT 8 CHECK (max_receivers BETWEEN 1 AND 32),
    batch_size integer NOT NULL DEFAULT 500 CHECK (batch_size BETWEEN 1 AND 2000),
    wait_time integer NOT NULL DEFAULT 20 CHECK (wait_time BETWEEN 1 AND 20),
    visibility_timeout integer CHECK (visibility_timeout BETWEEN 30 AND 43200),
    envelope text NOT NULL DEFAULT 'none' CHECK (envelope IN ('none', 'sns', 'eventbridge')),
    body_encoding text NOT NULL DEFAULT 'plain' CHECK (body_encoding IN ('plain', 'base64', 'gzip+base64')),
    each text,
    on_invalid text NOT NULL DEFAULT 'dead_letter' CHECK (on_invalid IN ('dead_letter', 'discard', 'leave')),
    max_receive_count integer CHECK (max_receive_count > 0),
    on_conflict text NOT NULL DEFAULT 'dead_letter' CHECK (on_conflict IN ('dead_letter', 'nothing', 'update')),
    conflict_columns text[],
    ledger boolean NOT NULL DEFAULT true,
    CONSTRAINT sqs_ingest_pipeline_conflict_columns_check
        CHECK (CASE on_conflict WHEN 'dead_letter' THEN conflict_columns IS NULL
                    WHEN 'nothing' THEN pg_catalog.cardinality(conflict_columns) > 0 IS NOT FALSE
                    WHEN 'update' THEN pg_catalog.cardinality(conflict_columns) > 0 AND conflict_columns IS NOT NULL
                    ELSE true END)
);
COMMENT ON TABLE @extschema@.sqs_ingest_pipeline IS
    'the pipelines: which SQS queue goes into which table, and how; which of them are enabled is not kept here';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.name IS 'name of the pipeline';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.owner IS 'role that the workers run as, and that may start and stop it';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.queue_url IS 'URL of the SQS queue; NULL means the setting sqs_ingest.queue_url';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.target IS 'table that rows are inserted into, with its schema, quoted where needed';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.columns IS 'the mapping: which column comes from which field of the message body, and what happens to the value';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.mask_method IS 'masking method: hmac, siv, sha256, sha256:N or md5';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.workers IS 'background workers at once';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.dead_letter_retention IS 'dead letters older than this are removed by the workers; NULL: kept until sqs_ingest_purge()';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.created_at IS 'when it was made';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.endpoint_url IS 'URL that requests are sent to; NULL: the setting sqs_ingest.endpoint_url, then AWS''s own settings, then the queue URL''s host';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.region IS 'AWS region; NULL: the setting sqs_ingest.region, then the queue URL''s host, then AWS''s own settings';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.profile IS 'profile of AWS''s shared files; NULL: the setting sqs_ingest.aws_profile';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.role_arn IS 'IAM role to assume, with the credentials found otherwise; NULL: none';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.external_id IS 'external id for assuming role_arn';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.protocol IS 'auto, json (AWS JSON 1.0) or query (form and XML); auto: json, unless the server does not know it';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.max_receivers IS 'receives at once that a worker grows to while they come back full';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.batch_size IS 'messages that go into one transaction at most';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.wait_time IS 'seconds that a long poll waits';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.visibility_timeout IS 'seconds that a receive asks for; NULL: the queue''s own';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.envelope IS 'what a body is wrapped in: none, sns or eventbridge';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.body_encoding IS 'how the body, or what the envelope holds, is encoded: plain, base64 or gzip+base64';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.each IS 'JSON Pointer to an array in the body: a row for each of its elements; NULL: one row a message';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.on_invalid IS 'what becomes of a message that cannot become a row: dead_letter, discard, or leave (to the queue''s redrive policy)';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.max_receive_count IS 'a message that was received more often is given up: it becomes a dead letter; NULL: no limit';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.on_conflict IS 'what becomes of a row that violates a unique constraint: dead_letter, nothing (the row there stays) or update (it is overwritten)';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.conflict_columns IS 'the columns of the unique constraint that on_conflict is about; needed for update';
COMMENT ON COLUMN @extschema@.sqs_ingest_pipeline.ledger IS 'whether message ids are recorded, so that no message is ingested twice';

CREATE TABLE @extschema@.sqs_ingest_ledger (
    pipeline text NOT NULL,
    sent_at timestamptz NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (pipeline, sent_at, message_id)
);
COMMENT ON TABLE @extschema@.sqs_ingest_ledger IS
    'the messages already ingested, for as long as the queue could deliver them again';
COMMENT ON COLUMN @extschema@.sqs_ingest_ledger.pipeline IS 'name of the pipeline';
COMMENT ON COLUMN @extschema@.sqs_ingest_ledger.sent_at IS 'SentTimestamp of the message; infinity when the server gave none';
COMMENT ON COLUMN @extschema@.sqs_ingest_ledger.message_id IS 'MessageId of the message';

CREATE TABLE @extschema@.sqs_ingest_dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline text NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    sent_at timestamptz,
    receive_count integer NOT NULL,
    reason text NOT NULL,
    field text,
    sqlstate text,
    constraint_name text,
    redacted jsonb NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    redrives integer NOT NULL DEFAULT 0,
    redriven_at timestamptz,
    sealed_metadata bytea
);
COMMENT ON TABLE @extschema@.sqs_ingest_dead_letter IS 'the messages that could not become rows';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.id IS 'number of the dead letter';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.pipeline IS 'name of the pipeline';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.message_id IS 'MessageId of the message';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.sent_at IS 'SentTimestamp of the message';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.receive_count IS 'ApproximateReceiveCount at the delivery that was rejected';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.reason IS 'why: not_json, missing_field, too_long, row_error and so on';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.field IS 'the field of the body, or the column, that was at fault';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.sqlstate IS 'of a row_error: the SQLSTATE that the target table raised';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.constraint_name IS 'of a row_error: the constraint that was violated';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.redacted IS 'the shape of the body: types, lengths and mask tokens, no plain values';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.sealed IS 'the original body, encrypted under the masking keyring';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.created_at IS 'when it was rejected';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.redrives IS 'how often sqs_ingest_redrive() tried it in vain; reason and what follows are of the last time';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.redriven_at IS 'when sqs_ingest_redrive() last tried it in vain';
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.sealed_metadata IS 'message attributes, MessageGroupId and SequenceNumber, encrypted like the body; NULL: it had none';

CREATE INDEX sqs_ingest_dead_letter_pipeline_idx
    ON @extschema@.sqs_ingest_dead_letter (pipeline, created_at);
COMMENT ON INDEX @extschema@.sqs_ingest_dead_letter_pipeline_idx IS 'dead letters of a pipeline by age';

CREATE TABLE @extschema@.sqs_ingest_key (
    id bigint PRIMARY KEY CHECK (id BETWEEN 1 AND 4294967295),
    fingerprint text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE @extschema@.sqs_ingest_key IS
    'the masking keys that this database was used with: another key under a known id is refused';
COMMENT ON COLUMN @extschema@.sqs_ingest_key.id IS 'id of the key in the keyring';
COMMENT ON COLUMN @extschema@.sqs_ingest_key.fingerprint IS 'HMAC of a constant under the key: names it and tells nothing about it';
COMMENT ON COLUMN @extschema@.sqs_ingest_key.recorded_at IS 'when it was first used here';

CREATE TABLE @extschema@.sqs_ingest_unmask_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    unmasked_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    role_name text NOT NULL,
    session_role_name text NOT NULL,
    client_addr inet,
    token text NOT NULL,
    reason text NOT NULL
);
COMMENT ON TABLE @extschema@.sqs_ingest_unmask_audit IS
    'who called unmask() and why; what was rolled back is in the server log only';
COMMENT ON COLUMN @extschema@.sqs_ingest_unmask_audit.id IS 'number of the entry';
COMMENT ON COLUMN @extschema@.sqs_ingest_unmask_audit.unmasked_at IS 'when';
COMMENT ON COLUMN @extschema@.sqs_ingest_unmask_audit.role_name IS 'the role that called it';
COMMENT ON COLUMN @extschema@.sqs_ingest_unmask_audit.session_role_name IS 'the role of the session';
COMMENT ON COLUMN @extschema@.sqs_ingest_unmask_audit.client_addr IS 'address of the client; NULL for a local socket';
COMMENT ON COLUMN @extschema@.sqs_ingest_unmask_audit.token IS 'the token, not its value';
COMMENT ON COLUMN @extschema@.sqs_ingest_unmask_audit.reason IS 'the reason that was given';

-- What users of the extension made is theirs: dumped.
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sqs_ingest_pipeline', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sqs_ingest_ledger', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sqs_ingest_dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sqs_ingest_dead_letter_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sqs_ingest_key', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sqs_ingest_unmask_audit', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.sqs_ingest_unmask_audit_id_seq', '');

-- A pipeline's owner sees it and its dead letters. The trigger below grants the owner SELECT, and with that DROP ROLE
-- is refused while the role owns a pipeline.
ALTER TABLE @extschema@.sqs_ingest_pipeline ENABLE ROW LEVEL SECURITY;
CREATE POLICY sqs_ingest_owner ON @extschema@.sqs_ingest_pipeline FOR SELECT
    USING (pg_catalog.pg_has_role(owner, 'USAGE'));
COMMENT ON POLICY sqs_ingest_owner ON @extschema@.sqs_ingest_pipeline IS 'owners see their own pipelines';

ALTER TABLE @extschema@.sqs_ingest_dead_letter ENABLE ROW LEVEL SECURITY;
CREATE POLICY sqs_ingest_owner ON @extschema@.sqs_ingest_dead_letter FOR SELECT
    USING (EXISTS (SELECT FROM @extschema@.sqs_ingest_pipeline p
                    WHERE p.name OPERATOR(pg_catalog.=) pipeline AND pg_catalog.pg_has_role(p.owner, 'USAGE')));
COMMENT ON POLICY sqs_ingest_owner ON @extschema@.sqs_ingest_dead_letter IS
    'owners see the dead letters of their own pipelines';

------------------------------------------------------------------------------------------------------------------------
-- start and stop

CREATE FUNCTION @extschema@.sqs_ingest_start(pipeline text DEFAULT 'user_logins') RETURNS boolean
    AS 'MODULE_PATHNAME', 'sqs_ingest_start' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_start(text) IS
    'enable a pipeline: its workers start when the transaction commits, and after every restart; false if it was enabled already';

CREATE FUNCTION @extschema@.sqs_ingest_stop(pipeline text DEFAULT 'user_logins') RETURNS boolean
    AS 'MODULE_PATHNAME', 'sqs_ingest_stop' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_stop(text) IS
    'disable a pipeline and wait until its workers have finished; false if it was not enabled';

CREATE FUNCTION @extschema@.sqs_ingest_pipeline_changed() RETURNS trigger
    AS 'MODULE_PATHNAME', 'sqs_ingest_pipeline_changed' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.sqs_ingest_pipeline_changed() IS
    'trigger: makes the launcher look at the pipelines again at commit, and grants their owners sight of them';

CREATE TRIGGER sqs_ingest_pipeline_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.sqs_ingest_pipeline
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.sqs_ingest_pipeline_changed();
COMMENT ON TRIGGER sqs_ingest_pipeline_changed ON @extschema@.sqs_ingest_pipeline IS
    'plain changes of the pipelines count too';

------------------------------------------------------------------------------------------------------------------------
-- pipelines

CREATE FUNCTION @extschema@.sqs_ingest_create_pipeline(
    name text,
    queue_url text,
    target regclass,
    columns jsonb DEFAULT NULL,
    mask_method text DEFAULT NULL,
    workers integer DEFAULT NULL,
    dead_letter_retention interval DEFAULT NULL,
    endpoint_url text DEFAULT NULL,
    region text DEFAULT NULL,
    profile text DEFAULT NULL,
    role_arn text DEFAULT NULL,
    external_id text DEFAULT NULL,
    protocol text DEFAULT NULL,
    max_receivers integer DEFAULT NULL,
    batch_size integer DEFAULT NULL,
    wait_time integer DEFAULT NULL,
    visibility_timeout integer DEFAULT NULL,
    envelope text DEFAULT NULL,
    body_encoding text DEFAULT NULL,
    each text DEFAULT NULL,
    on_invalid text DEFAULT NULL,
    max_receive_count integer DEFAULT NULL,
    on_conflict text DEFAULT NULL,
    conflict_columns text[] DEFAULT NULL,
    ledger boolean DEFAULT NULL
) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'sqs_ingest_create_pipeline' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_create_pipeline(text, text, regclass, jsonb, text, integer, interval, text, text, text, text, text, text, integer, integer, integer, integer, text, text, text, text, integer, text, text[], boolean) IS
    'make a pipeline from a queue into a table, owned by the caller; without columns the table''s own are matched by name; an option that is NULL has its default; returns the mapping';

CREATE FUNCTION @extschema@.sqs_ingest_alter_pipeline(
    name text,
    queue_url text DEFAULT NULL,
    target regclass DEFAULT NULL,
    columns jsonb DEFAULT NULL,
    mask_method text DEFAULT NULL,
    workers integer DEFAULT NULL,
    dead_letter_retention interval DEFAULT NULL,
    endpoint_url text DEFAULT NULL,
    region text DEFAULT NULL,
    profile text DEFAULT NULL,
    role_arn text DEFAULT NULL,
    external_id text DEFAULT NULL,
    protocol text DEFAULT NULL,
    max_receivers integer DEFAULT NULL,
    batch_size integer DEFAULT NULL,
    wait_time integer DEFAULT NULL,
    visibility_timeout integer DEFAULT NULL,
    envelope text DEFAULT NULL,
    body_encoding text DEFAULT NULL,
    each text DEFAULT NULL,
    on_invalid text DEFAULT NULL,
    max_receive_count integer DEFAULT NULL,
    on_conflict text DEFAULT NULL,
    conflict_columns text[] DEFAULT NULL,
    ledger boolean DEFAULT NULL,
    reset text[] DEFAULT NULL
) RETURNS void
    AS 'MODULE_PATHNAME', 'sqs_ingest_alter_pipeline' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_alter_pipeline(text, text, regclass, jsonb, text, integer, interval, text, text, text, text, text, text, integer, integer, integer, integer, text, text, text, text, integer, text, text[], boolean, text[]) IS
    'change a pipeline, running or not; an option that is NULL stays as it is, those named in reset go back to their default';

CREATE FUNCTION @extschema@.sqs_ingest_drop_pipeline(name text, cascade boolean DEFAULT false) RETURNS void
    AS 'MODULE_PATHNAME', 'sqs_ingest_drop_pipeline' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_drop_pipeline(text, boolean) IS
    'stop a pipeline and remove it with its ledger; its dead letters only with cascade; the target table stays';

------------------------------------------------------------------------------------------------------------------------
-- status

CREATE FUNCTION @extschema@.sqs_ingest_preloaded() RETURNS boolean
    AS 'MODULE_PATHNAME', 'sqs_ingest_preloaded' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_preloaded() IS
    'whether the library was loaded by shared_preload_libraries, without which no pipeline can run';

CREATE FUNCTION @extschema@.sqs_ingest_stat(
    OUT pipeline text,
    OUT state text,
    OUT why text,
    OUT hint text,
    OUT workers jsonb,
    OUT queue_url text,
    OUT received bigint,
    OUT inserted bigint,
    OUT duplicates bigint,
    OUT dead_letters bigint,
    OUT released bigint,
    OUT deleted bigint,
    OUT delete_failures bigint,
    OUT bytes bigint,
    OUT transactions bigint,
    OUT receive_errors bigint,
    OUT in_hand integer,
    OUT last_error text,
    OUT last_error_at timestamptz,
    OUT last_poll_at timestamptz,
    OUT lag_seconds double precision,
    OUT messages_per_second double precision,
    OUT durability text,
    OUT stats_since timestamptz,
    OUT discarded bigint,
    OUT protocol text,
    OUT credentials text
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'sqs_ingest_stat' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.sqs_ingest_stat() IS
    'what the pipelines of this database do, from shared memory; use the view pg_stat_sqs_ingest';

CREATE VIEW @extschema@.pg_stat_sqs_ingest WITH (security_barrier) AS
    SELECT COALESCE(p.name, s.pipeline) AS pipeline,
           CASE WHEN NOT @extschema@.sqs_ingest_preloaded() THEN 'cannot_start'
                ELSE COALESCE(s.state, 'stopped') END AS state,
           CASE WHEN NOT @extschema@.sqs_ingest_preloaded() THEN 'sqs_ingest is not in shared_preload_libraries'
                ELSE COALESCE(s.why, 'the pipeline is not enabled') END AS why,
           CASE WHEN NOT @extschema@.sqs_ingest_preloaded()
                THEN 'Add it to shared_preload_libraries in postgresql.conf and restart the server.'
                WHEN s.pipeline IS NULL THEN 'Run sqs_ingest_start() to enable it.'
                ELSE s.hint END AS hint,
           COALESCE(s.workers, '[]') AS workers,
           COALESCE(p.queue_url, NULLIF(s.queue_url, ''),
                    NULLIF(pg_catalog.current_setting('sqs_ingest.queue_url', true), '')) AS queue_url,
           p.target,
           COALESCE(s.received, 0) AS received,
           COALESCE(s.inserted, 0) AS inserted,
           COALESCE(s.duplicates, 0) AS duplicates,
           COALESCE(s.dead_letters, 0) AS dead_letters,
           COALESCE(s.released, 0) AS released,
           COALESCE(s.in_hand, 0) AS in_hand,
           COALESCE(s.deleted, 0) AS deleted,
           COALESCE(s.delete_failures, 0) AS delete_failures,
           COALESCE(s.bytes, 0) AS bytes,
           COALESCE(s.transactions, 0) AS transactions,
           COALESCE(s.receive_errors, 0) AS receive_errors,
           s.last_error,
           s.last_error_at,
           s.last_poll_at,
           s.lag_seconds,
           COALESCE(s.messages_per_second, 0) AS messages_per_second,
           s.durability,
           s.stats_since,
           COALESCE(s.discarded, 0) AS discarded,
           s.protocol,
           s.credentials
      FROM @extschema@.sqs_ingest_pipeline p
           FULL JOIN @extschema@.sqs_ingest_stat() s ON s.pipeline OPERATOR(pg_catalog.=) p.name
     WHERE (p.name IS NOT NULL OR s.state OPERATOR(pg_catalog.<>) 'stopped')
       AND (pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') OR pg_catalog.pg_has_role(p.owner, 'USAGE'));
COMMENT ON VIEW @extschema@.pg_stat_sqs_ingest IS 'one row per pipeline: its state, what to do about it, and its counters';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.pipeline IS 'name of the pipeline';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.state IS 'starting, running, idle, backing_off, stopping, stopped or cannot_start';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.why IS 'what the state comes from';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.hint IS 'what to do about it, if anything';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.workers IS 'its background workers: pid, since, state';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.queue_url IS 'URL of the queue';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.target IS 'the target table';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.received IS 'deliveries taken from the queue: the sum of inserted, duplicates, dead_letters, discarded, released and in_hand';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.inserted IS 'messages that became rows';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.duplicates IS 'deliveries of messages that were ingested before, or whose row was there already (on_conflict = nothing, without each, into a table without row triggers before INSERT)';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.dead_letters IS 'messages that became dead letters';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.released IS 'deliveries given back to the queue, or lost to its visibility timeout';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.in_hand IS 'deliveries received and not yet written or released';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.deleted IS 'messages deleted from the queue';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.delete_failures IS 'deletions that failed, each try counted';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.bytes IS 'bytes of the answers to receives';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.transactions IS 'committed batches';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.receive_errors IS 'receives that failed';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.last_error IS 'the last error, kept after it is over';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.last_error_at IS 'when that was';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.last_poll_at IS 'when the queue last answered a receive';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.lag_seconds IS 'age of the oldest message of the last batch when it was committed; 0 when idle';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.messages_per_second IS 'average of the last full minute';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.durability IS 'what a commit waits for before its messages are deleted';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.stats_since IS 'since when the counters count';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.discarded IS 'messages deleted without becoming anything (on_invalid = discard)';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.protocol IS 'the protocol that the queue''s server speaks: json or query';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.credentials IS 'where the AWS credentials come from';

CREATE FUNCTION @extschema@.sqs_ingest_status() RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL RESTRICTED
    RETURN (SELECT COALESCE(pg_catalog.jsonb_object_agg(s.pipeline, pg_catalog.to_jsonb(s) OPERATOR(pg_catalog.-) 'pipeline'),
                            '{}')
              FROM @extschema@.pg_stat_sqs_ingest s);
COMMENT ON FUNCTION @extschema@.sqs_ingest_status() IS 'the rows of pg_stat_sqs_ingest as one JSON object, by pipeline';

CREATE FUNCTION @extschema@.sqs_ingest_stat_reset(pipeline text DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'sqs_ingest_stat_reset' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_stat_reset(text) IS
    'set the counters of a pipeline to zero; without an argument, of all that the caller owns in this database';

------------------------------------------------------------------------------------------------------------------------
-- looking before leaping

CREATE FUNCTION @extschema@.sqs_ingest_check(
    pipeline text DEFAULT 'user_logins',
    OUT item text,
    OUT ok boolean,
    OUT detail text,
    OUT hint text
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'sqs_ingest_check' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_check(text) IS
    'everything that a pipeline needs, one row each: whether it is in order, and what to do; asks the queue, changes nothing';

CREATE FUNCTION @extschema@.sqs_ingest_preview(pipeline text, body text, sent_at timestamptz DEFAULT pg_catalog.now())
    RETURNS jsonb
    AS 'MODULE_PATHNAME', 'sqs_ingest_preview' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_preview(text, text, timestamptz) IS
    'the row that a message body would become, masked, or why it would be rejected, column by column; changes nothing';

CREATE FUNCTION @extschema@.sqs_ingest_preview(pipeline text, body text, sent_at timestamptz, attributes jsonb, group_id text DEFAULT NULL)
    RETURNS jsonb
    AS 'MODULE_PATHNAME', 'sqs_ingest_preview' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_preview(text, text, timestamptz, jsonb, text) IS
    'the same for a message with attributes, a JSON object of their values, and a message group';

------------------------------------------------------------------------------------------------------------------------
-- ingesting by hand, dead letters, erasure

CREATE PROCEDURE @extschema@.sqs_ingest_drain(pipeline text DEFAULT 'user_logins', max_messages bigint DEFAULT NULL)
    AS 'MODULE_PATHNAME', 'sqs_ingest_drain' LANGUAGE C;
COMMENT ON PROCEDURE @extschema@.sqs_ingest_drain(text, bigint) IS
    'ingest in this session until the queue is empty or max_messages were received; for a pipeline that is not enabled, by its owner';

CREATE FUNCTION @extschema@.sqs_ingest_redrive(
    pipeline text DEFAULT 'user_logins',
    reason text DEFAULT NULL,
    ids bigint[] DEFAULT NULL,
    older_than interval DEFAULT NULL,
    newer_than interval DEFAULT NULL,
    max_letters bigint DEFAULT NULL
) RETURNS bigint
    AS 'MODULE_PATHNAME', 'sqs_ingest_redrive' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_redrive(text, text, bigint[], interval, interval, bigint) IS
    'try dead letters again: those that become rows now are removed; returns how many did';

CREATE FUNCTION @extschema@.sqs_ingest_purge(
    pipeline text DEFAULT 'user_logins',
    reason text DEFAULT NULL,
    ids bigint[] DEFAULT NULL,
    older_than interval DEFAULT NULL,
    newer_than interval DEFAULT NULL
) RETURNS bigint
    AS 'MODULE_PATHNAME', 'sqs_ingest_purge' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_purge(text, text, bigint[], interval, interval) IS
    'remove dead letters for good, chosen by at least one of the conditions; returns how many';

CREATE FUNCTION @extschema@.sqs_ingest_forget(user_id text, pipeline text DEFAULT 'user_logins') RETURNS jsonb
    AS 'MODULE_PATHNAME', 'sqs_ingest_forget' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_forget(text, text) IS
    'erase a user from the target table and from the dead letters; returns how many of each';

------------------------------------------------------------------------------------------------------------------------
-- masking

CREATE FUNCTION @extschema@.mask(value text) RETURNS text
    AS 'MODULE_PATHNAME', 'sqs_ingest_mask' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.mask(text) IS
    'mask a value as the worker does, with the method of sqs_ingest.mask_method';

CREATE FUNCTION @extschema@.mask(value text, method text) RETURNS text
    AS 'MODULE_PATHNAME', 'sqs_ingest_mask_with_method' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.mask(text, text) IS 'mask a value with a method: hmac, siv, sha256, sha256:N or md5';

CREATE FUNCTION @extschema@.mask(address inet) RETURNS text
    AS 'MODULE_PATHNAME', 'sqs_ingest_mask_inet' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.mask(inet) IS
    'mask an IP address in the canonical form that the worker masks';

CREATE FUNCTION @extschema@.mask_candidates(value text) RETURNS text[]
    AS 'MODULE_PATHNAME', 'sqs_ingest_mask_candidates' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.mask_candidates(text) IS
    'the masks of a value under every key of the keyring, the primary one first, with the method of sqs_ingest.mask_method';

CREATE FUNCTION @extschema@.mask_candidates(value text, method text) RETURNS text[]
    AS 'MODULE_PATHNAME', 'sqs_ingest_mask_candidates_with_method' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.mask_candidates(text, text) IS
    'the masks of a value under every key of the keyring, the primary one first, with a method';

CREATE FUNCTION @extschema@.mask_candidates(address inet) RETURNS text[]
    AS 'MODULE_PATHNAME', 'sqs_ingest_mask_candidates_inet' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.mask_candidates(inet) IS
    'the masks of an IP address, in the canonical form that the worker masks, under every key of the keyring';

CREATE FUNCTION @extschema@.mask_rewrap(token text) RETURNS text
    AS 'MODULE_PATHNAME', 'sqs_ingest_mask_rewrap' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.mask_rewrap(text) IS
    'a token of method siv under the primary key of the keyring, its value never shown';

CREATE FUNCTION @extschema@.unmask(token text, reason text) RETURNS text
    AS 'MODULE_PATHNAME', 'sqs_ingest_unmask' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.unmask(text, text) IS
    'the value of a token of method siv; the server log and sqs_ingest_unmask_audit tell who asked and why';

CREATE FUNCTION @extschema@.mask_keys(
    OUT id bigint,
    OUT is_primary boolean,
    OUT state text,
    OUT fingerprint text,
    OUT recorded_at timestamptz
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'sqs_ingest_mask_keys' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.mask_keys() IS
    'the keys of the keyring and of this database, without the keys: state is ok, new (not used here yet), missing (not in the keyring) or different (another key under this id)';

CREATE FUNCTION @extschema@.sqs_ingest_create_keyring() RETURNS text
    AS 'MODULE_PATHNAME', 'sqs_ingest_create_keyring' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_create_keyring() IS
    'make the file of masking keys with one random key; returns its path';

------------------------------------------------------------------------------------------------------------------------
-- rights: whatever touches a key or a pipeline is granted on purpose

REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_start(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_stop(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_pipeline_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_create_pipeline(text, text, regclass, jsonb, text, integer, interval, text, text, text, text, text, text, integer, integer, integer, integer, text, text, text, text, integer, text, text[], boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_alter_pipeline(text, text, regclass, jsonb, text, integer, interval, text, text, text, text, text, text, integer, integer, integer, integer, text, text, text, text, integer, text, text[], boolean, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_drop_pipeline(text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_stat() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_status() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_stat_reset(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_check(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_preview(text, text, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_preview(text, text, timestamptz, jsonb, text) FROM PUBLIC;
REVOKE ALL ON PROCEDURE @extschema@.sqs_ingest_drain(text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_redrive(text, text, bigint[], interval, interval, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_purge(text, text, bigint[], interval, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_forget(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.mask(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.mask(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.mask(inet) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.mask_candidates(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.mask_candidates(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.mask_candidates(inet) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.mask_rewrap(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.unmask(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.mask_keys() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_create_keyring() FROM PUBLIC;

GRANT SELECT ON @extschema@.pg_stat_sqs_ingest TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.sqs_ingest_stat() TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.sqs_ingest_status() TO pg_monitor;
