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
-- A keyring is never overwritten.
DO $$
BEGIN
    PERFORM sqs_ingest_create_keyring();
EXCEPTION WHEN config_file_error THEN
    RAISE NOTICE '%', regexp_replace(SQLERRM, '"/.*"', '"..."');
END
$$;

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
SELECT mask('x', 'siv');

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
RESET enable_seqscan;
RESET enable_bitmapscan;
PREPARE look_up(text) AS SELECT i FROM logins WHERE masked_ip = (SELECT mask($1));
EXECUTE look_up('10.0.0.250');
EXECUTE look_up('10.0.0.251');
