-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION sqs_ingest UPDATE TO '1.1'" to load this file. \quit

-- What it leaves is what sqs_ingest--1.1.sql makes, to the letter (test_upgrade.py compares them). Nothing is dropped and
-- nothing is granted: a GRANT in here would count as the extension's own, and pg_dump would leave it out.

-- First of all, whether the server has the library for it: a preloaded one is only replaced by a restart.
DO LANGUAGE plpgsql $$
BEGIN
    CREATE FUNCTION @extschema@.sqs_ingest_drop_pipeline(name text, cascade boolean DEFAULT false) RETURNS void
        AS 'MODULE_PATHNAME', 'sqs_ingest_drop_pipeline' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
EXCEPTION WHEN undefined_function THEN
    RAISE EXCEPTION 'the library of sqs_ingest that the server has loaded is older than version 1.1'
        USING ERRCODE = 'object_not_in_prerequisite_state',
              DETAIL = SQLERRM,
              HINT = 'Install the files of version 1.1 and restart the server, then run ALTER EXTENSION sqs_ingest UPDATE again.';
END
$$;

-- All locks at the start, in the order of those who hold several: the view and, with it, the pipelines that it shows, and
-- then what a redrive or a drop goes on to.
LOCK TABLE @extschema@.pg_stat_sqs_ingest, @extschema@.sqs_ingest_dead_letter;

------------------------------------------------------------------------------------------------------------------------
-- tables

ALTER TABLE @extschema@.sqs_ingest_pipeline
    ADD COLUMN endpoint_url text,
    ADD COLUMN region text,
    ADD COLUMN profile text,
    ADD COLUMN role_arn text,
    ADD COLUMN external_id text,
    ADD COLUMN protocol text NOT NULL DEFAULT 'auto' CHECK (protocol IN ('auto', 'json', 'query')),
    ADD COLUMN max_receivers integer NOT NULL DEFAULT 8 CHECK (max_receivers BETWEEN 1 AND 32),
    ADD COLUMN batch_size integer NOT NULL DEFAULT 500 CHECK (batch_size BETWEEN 1 AND 2000),
    ADD COLUMN wait_time integer NOT NULL DEFAULT 20 CHECK (wait_time BETWEEN 1 AND 20),
    ADD COLUMN visibility_timeout integer CHECK (visibility_timeout BETWEEN 30 AND 43200),
    ADD COLUMN envelope text NOT NULL DEFAULT 'none' CHECK (envelope IN ('none', 'sns', 'eventbridge')),
    ADD COLUMN body_encoding text NOT NULL DEFAULT 'plain' CHECK (body_encoding IN ('plain', 'base64', 'gzip+base64')),
    ADD COLUMN each text,
    ADD COLUMN on_invalid text NOT NULL DEFAULT 'dead_letter' CHECK (on_invalid IN ('dead_letter', 'discard', 'leave')),
    ADD COLUMN max_receive_count integer CHECK (max_receive_count > 0),
    ADD COLUMN on_conflict text NOT NULL DEFAULT 'dead_letter' CHECK (on_conflict IN ('dead_letter', 'nothing', 'update')),
    ADD COLUMN conflict_columns text[],
    ADD COLUMN ledger boolean NOT NULL DEFAULT true,
    ADD CONSTRAINT sqs_ingest_pipeline_conflict_columns_check
        CHECK (CASE on_conflict WHEN 'dead_letter' THEN conflict_columns IS NULL
                    WHEN 'nothing' THEN pg_catalog.cardinality(conflict_columns) > 0 IS NOT FALSE
                    WHEN 'update' THEN pg_catalog.cardinality(conflict_columns) > 0 AND conflict_columns IS NOT NULL
                    ELSE true END);
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

ALTER TABLE @extschema@.sqs_ingest_dead_letter
    ADD COLUMN sealed_metadata bytea;
COMMENT ON COLUMN @extschema@.sqs_ingest_dead_letter.sealed_metadata IS 'message attributes, MessageGroupId and SequenceNumber, encrypted like the body; NULL: it had none';

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

COMMENT ON FUNCTION @extschema@.sqs_ingest_drop_pipeline(text, boolean) IS
    'stop a pipeline and remove it with its ledger; its dead letters only with cascade; the target table stays';

------------------------------------------------------------------------------------------------------------------------
-- status

-- More columns of a result: ALTER FUNCTION has nothing for it, and DROP FUNCTION would take with it what was granted to
-- monitoring roles, pipeline owners and others, and fail where a user's view stands on it. So it is done in the catalog
-- itself, the hard way, as upgrade scripts of contrib modules do it.
UPDATE pg_catalog.pg_proc
   SET proallargtypes = proallargtypes OPERATOR(pg_catalog.||)
           ARRAY['pg_catalog.int8', 'pg_catalog.text', 'pg_catalog.text']::pg_catalog.regtype[]::pg_catalog.oid[],
       proargmodes = proargmodes OPERATOR(pg_catalog.||) ARRAY['o', 'o', 'o']::pg_catalog."char"[],
       proargnames = proargnames OPERATOR(pg_catalog.||) ARRAY['discarded', 'protocol', 'credentials']
 WHERE oid OPERATOR(pg_catalog.=) '@extschema@.sqs_ingest_stat()'::pg_catalog.regprocedure::pg_catalog.oid;

CREATE OR REPLACE VIEW @extschema@.pg_stat_sqs_ingest WITH (security_barrier) AS
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
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.received IS 'deliveries taken from the queue: the sum of inserted, duplicates, dead_letters, discarded, released and in_hand';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.duplicates IS 'deliveries of messages that were ingested before, or whose row was there already (on_conflict = nothing, without each, into a table without row triggers before INSERT)';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.discarded IS 'messages deleted without becoming anything (on_invalid = discard)';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.protocol IS 'the protocol that the queue''s server speaks: json or query';
COMMENT ON COLUMN @extschema@.pg_stat_sqs_ingest.credentials IS 'where the AWS credentials come from';

-- The same text as before, parsed again for the new columns.
CREATE OR REPLACE FUNCTION @extschema@.sqs_ingest_status() RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL RESTRICTED
    RETURN (SELECT COALESCE(pg_catalog.jsonb_object_agg(s.pipeline, pg_catalog.to_jsonb(s) OPERATOR(pg_catalog.-) 'pipeline'),
                            '{}')
              FROM @extschema@.pg_stat_sqs_ingest s);

------------------------------------------------------------------------------------------------------------------------
-- looking before leaping

COMMENT ON FUNCTION @extschema@.sqs_ingest_preview(text, text, timestamptz) IS
    'the row that a message body would become, masked, or why it would be rejected, column by column; changes nothing';

CREATE FUNCTION @extschema@.sqs_ingest_preview(pipeline text, body text, sent_at timestamptz, attributes jsonb, group_id text DEFAULT NULL)
    RETURNS jsonb
    AS 'MODULE_PATHNAME', 'sqs_ingest_preview' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.sqs_ingest_preview(text, text, timestamptz, jsonb, text) IS
    'the same for a message with attributes, a JSON object of their values, and a message group';

------------------------------------------------------------------------------------------------------------------------
-- rights

REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_create_pipeline(text, text, regclass, jsonb, text, integer, interval, text, text, text, text, text, text, integer, integer, integer, integer, text, text, text, text, integer, text, text[], boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_alter_pipeline(text, text, regclass, jsonb, text, integer, interval, text, text, text, text, text, text, integer, integer, integer, integer, text, text, text, text, integer, text, text[], boolean, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_drop_pipeline(text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.sqs_ingest_preview(text, text, timestamptz, jsonb, text) FROM PUBLIC;
