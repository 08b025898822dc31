-- mask(): what can be said without knowing the key. Reference values under a known key are unit tests.
CREATE EXTENSION sqs_ingest;

-- One random key, unless an earlier run left one. Its messages name a path.
SET client_min_messages = error;
DO $$
BEGIN
    PERFORM sqs_ingest_create_keyring();
EXCEPTION WHEN config_file_error THEN
    NULL;
END
$$;
RESET client_min_messages;
-- It is never overwritten, whether its keys are recorded here or not.
CREATE FUNCTION pg_temp.error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'none';
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || regexp_replace(SQLERRM, '"/.*"', '"..."'), hint);
END
$$;
DELETE FROM sqs_ingest_key;
SELECT pg_temp.error_of('SELECT sqs_ingest_create_keyring()');
-- what is recorded of the keys
SELECT bool_and(state = 'new') AS new, bool_and(recorded_at IS NULL) AS not_recorded, count(*) FILTER (WHERE is_primary) AS primary_keys,
       bool_and(fingerprint ~ '^[0-9a-f]{64}$') AS fingerprints, max(id) = max(id) FILTER (WHERE is_primary) AS primary_is_highest
  FROM mask_keys();
INSERT INTO sqs_ingest_key (id, fingerprint) SELECT id, fingerprint FROM mask_keys();
SELECT bool_and(state = 'ok') AS ok, bool_and(recorded_at <= now()) AS recorded FROM mask_keys();
SELECT pg_temp.error_of('SELECT sqs_ingest_create_keyring()');
\set VERBOSITY terse
INSERT INTO sqs_ingest_key (id, fingerprint) VALUES (4294967296, 'no id');
\set VERBOSITY default
INSERT INTO sqs_ingest_key (id, fingerprint) VALUES (4294967295, 'gone');
SELECT id, is_primary, state, fingerprint FROM mask_keys() WHERE state <> 'ok';
DELETE FROM sqs_ingest_key WHERE id = 4294967295;

-- the default method is keyed, and the same value has the same mask
SHOW sqs_ingest.mask_method;
SELECT left(mask('199.172.111.135'), 4) AS prefix,
       length(mask('199.172.111.135')) AS length,
       mask('199.172.111.135') ~ '^hm1\.[0-9a-f]{64}$' AS form,
       mask('199.172.111.135') = mask('199.172.111.135') AS same_again,
       mask('199.172.111.135') <> mask('199.172.111.136') AS others_differ,
       mask('x') = mask('x', 'hmac') AS default_is_hmac,
       position(encode(sha256('199.172.111.135'), 'hex') IN mask('199.172.111.135')) AS plain_hash_in_it;

-- nothing is trimmed or folded
SELECT mask('a') <> mask('A') AS letter_case, mask('a') <> mask('a ') AS blanks, mask('') <> mask(' ') AS empty;

-- the methods of older pipelines, bit for bit
SELECT m, mask('593-47-5928', m), mask('593-47-5928', m) = reference AS right
  FROM (VALUES ('sha256', encode(sha256('593-47-5928'), 'hex')),
               ('sha256:64', encode(sha256('593-47-5928'), 'hex')),
               ('sha256:8', left(encode(sha256('593-47-5928'), 'hex'), 8)),
               ('sha256:1', left(encode(sha256('593-47-5928'), 'hex'), 1)),
               ('md5', md5('593-47-5928'))) AS methods(m, reference);
SELECT mask('', 'sha256') = encode(sha256(''), 'hex') AS empty_sha256, mask('', 'md5') = md5('') AS empty_md5;
-- UTF-8, whatever the database's encoding
SELECT mask(U&'M\00FCller', 'sha256') = encode(sha256('\x4dc3bc6c6c6572'::bytea), 'hex') AS utf8;
-- longer than any page
SELECT mask(repeat('0123456789', 100000), 'md5') = md5(repeat('0123456789', 100000)) AS a_megabyte;

-- NULL stays NULL
SELECT mask(NULL::text) IS NULL AS text, mask(NULL::inet) IS NULL AS inet,
       mask(NULL, 'sha256') IS NULL AS value, mask('x', NULL) IS NULL AS method;

-- an address is masked in the form that the worker masks
SELECT mask('1.2.3.4'::inet) = mask('1.2.3.4') AS ipv4,
       mask('1.2.3.4/8'::inet) = mask('1.2.3.4') AS without_its_prefix,
       mask('::ffff:1.2.3.4'::inet) = mask('1.2.3.4') AS mapped,
       mask('2001:0DB8:0:0:0:0:0:1'::inet) = mask('2001:db8::1') AS ipv6,
       mask('::'::inet) = mask('::') AS any_address;
-- text is masked as it stands
SELECT mask('::ffff:1.2.3.4') <> mask('1.2.3.4') AS text_is_text;

-- unknown methods
SELECT mask('x', 'rot13');
SELECT mask('x', '');
SELECT mask('x', 'SHA256');
SELECT mask('x', 'sha256:0');
SELECT mask('x', 'sha256:65');
SELECT mask('x', 'sha256:8 ');
-- a value in the method's place is not repeated
SELECT mask('hmac', '203.0.113.7');

-- reversible tokens
SELECT mask('199.172.111.135', 'siv') ~ '^sv1\.[A-Za-z0-9_-]{43}$' AS form,
       mask('x', 'siv') = mask('x', 'siv') AS same_again, mask('x', 'siv') <> mask('X', 'siv') AS others_differ,
       mask('', 'siv') ~ '^sv1\.[A-Za-z0-9_-]{23}$' AS empty, mask(NULL, 'siv') IS NULL AS is_null;
SELECT value = unmask(mask(value, 'siv'), 'regression test') AS same, octet_length(mask(value, 'siv')) AS length
  FROM (VALUES (''), ('x'), (U&'M\00FCller'), (E'two\nlines'), (repeat('0123456789', 10000))) AS v(value);
SELECT count(*), bool_and(role_name = current_user AND session_role_name = session_user) AS roles, min(reason) AS reason,
       bool_and(token ~ '^sv1\.') AS tokens
  FROM sqs_ingest_unmask_audit;
SELECT unmask(NULL, 'regression test') IS NULL AS nothing, unmask(NULL, NULL) IS NULL AS nothing_at_all;
-- not without a reason
SELECT unmask(mask('x', 'siv'), NULL);
SELECT unmask(mask('x', 'siv'), '');
SELECT unmask(mask('x', 'siv'), E' \t\n');
-- nor where it could not be recorded
BEGIN READ ONLY;
SELECT unmask(mask('x', 'siv'), 'regression test');
ROLLBACK;
-- and only what mask() made
SELECT unmask('203.0.113.7', 'regression test');
SELECT unmask('', 'regression test');
SELECT unmask(mask('203.0.113.7'), 'regression test');
SELECT unmask(mask('203.0.113.7', 'md5'), 'regression test');
SELECT unmask('sv1.', 'regression test');
SELECT unmask('sv1.203.0.113.7', 'regression test');
SELECT unmask('sv1.AAAAAAAAAAAAAAAAAAAAAAAA', 'regression test');
SELECT unmask('sv4294967295.AAAAAAAAAAAAAAAAAAAAAAAA', 'regression test');
SELECT unmask('sv4294967296.AAAAAAAAAAAAAAAAAAAAAAAA', 'regression test');
SELECT unmask(mask('x', 'siv') || '=', 'regression test');
SELECT unmask(' ' || mask('x', 'siv'), 'regression test');
SELECT count(*) AS audited FROM sqs_ingest_unmask_audit;

-- tokens under every key, and under the newest
SELECT (mask_candidates('x'))[1] = mask('x') AS first_is_the_newest,
       cardinality(mask_candidates('x')) = (SELECT count(*) FROM mask_keys()) AS one_for_each_key,
       (mask_candidates('x', 'siv'))[1] = mask('x', 'siv') AS siv,
       mask_candidates('x', 'md5') = ARRAY[md5('x')] AS without_a_key,
       mask_candidates('::ffff:1.2.3.4'::inet) = mask_candidates('1.2.3.4') AS address,
       mask_candidates(NULL::text) IS NULL AS nothing;
SELECT mask_candidates('x', 'rot13');
SELECT mask_rewrap(mask('x', 'siv')) = mask('x', 'siv') AS newest_already, mask_rewrap(NULL) IS NULL AS nothing;
SELECT mask_rewrap(mask('203.0.113.7'));
SELECT mask_rewrap('203.0.113.7');
SELECT mask_rewrap('sv4294967295.AAAAAAAAAAAAAAAAAAAAAAAA');

-- the fast form of a look-up masks once and uses an index
CREATE TEMP TABLE logins AS
    SELECT i, mask('10.0.0.' || i) AS masked_ip FROM generate_series(1, 250) AS i;
CREATE INDEX ON logins (masked_ip);
ANALYZE logins;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
-- Releases word plans differently: only the names of the nodes are shown.
CREATE FUNCTION pg_temp.plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        RETURN NEXT substring(line FROM 'Index Scan|Seq Scan|InitPlan 1|Index Cond|Filter|Result');
    END LOOP;
END
$$;
SELECT * FROM pg_temp.plan_of($$SELECT i FROM logins WHERE masked_ip = (SELECT mask('10.0.0.7'))$$);
SELECT i FROM logins WHERE masked_ip = (SELECT mask('10.0.0.7'));
-- and so does the one for values that were masked before a rotation
SELECT * FROM pg_temp.plan_of($$SELECT i FROM logins WHERE masked_ip = ANY (mask_candidates('10.0.0.7'))$$);
SELECT i FROM logins WHERE masked_ip = ANY (mask_candidates('10.0.0.7'));
RESET enable_seqscan;
RESET enable_bitmapscan;
PREPARE look_up(text) AS SELECT i FROM logins WHERE masked_ip = (SELECT mask($1));
EXECUTE look_up('10.0.0.250');
EXECUTE look_up('10.0.0.251');

-- Another key than the one that this database was used with: nothing is masked with it. A session looks once.
DELETE FROM sqs_ingest_key;
INSERT INTO sqs_ingest_key (id, fingerprint) SELECT id, 'of another key' FROM mask_keys();
\c -
CREATE FUNCTION pg_temp.error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'none';
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || regexp_replace(SQLERRM, '"/.*"', '"..."'), hint);
END
$$;
SELECT pg_temp.error_of($$SELECT mask('x')$$);
SELECT statement FROM (VALUES ($$SELECT mask('x', 'siv')$$), ($$SELECT mask('1.2.3.4'::inet)$$), ($$SELECT mask_candidates('x')$$),
                              ($$SELECT unmask('sv1.AAAAAAAAAAAAAAAAAAAAAAAA', 'test')$$), ($$SELECT mask_rewrap('')$$)) AS s(statement)
 WHERE pg_temp.error_of(statement) <> pg_temp.error_of($$SELECT mask('x')$$);
SELECT mask('x', 'md5') = md5('x') AS without_a_key;
SELECT bool_and(state = 'different') AS different FROM mask_keys();
-- Nor with an older key than the newest that was used here. Older ones may be missing.
DELETE FROM sqs_ingest_key;
INSERT INTO sqs_ingest_key (id, fingerprint) VALUES (4294967295, 'gone');
SELECT pg_temp.error_of($$SELECT mask('x')$$);
DELETE FROM sqs_ingest_key;
SELECT pg_temp.error_of($$SELECT mask('x')$$);
