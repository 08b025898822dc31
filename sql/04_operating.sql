-- sqs_ingest_check(), _preview(), _drain(), _redrive(), _purge() and _forget(), as far as they go without an SQS
-- server: what they refuse and how they say it, and what they do with dead letters. The cluster must not have
-- sqs_ingest.queue_url set.
CREATE EXTENSION sqs_ingest;

-- there is no pipeline yet
SELECT * FROM sqs_ingest_check('other');
SELECT * FROM sqs_ingest_check(NULL);
SELECT sqs_ingest_preview('user_logins', '{}');
CALL sqs_ingest_drain();
SELECT sqs_ingest_redrive();
SELECT sqs_ingest_forget('x');
-- dead letters of a pipeline that was deleted can be removed
SELECT sqs_ingest_purge('other', older_than => '0');

-- before the first start: what that would find (pids, paths and numbers of this machine aside)
SELECT item, ok, CASE WHEN item NOT IN ('launcher', 'worker slots', 'keyring', 'owner', 'durability') THEN detail END AS detail,
       CASE WHEN item NOT IN ('launcher', 'worker slots', 'keyring', 'durability') THEN hint END AS hint
  FROM sqs_ingest_check();
SELECT to_regclass('user_logins') AS target, (SELECT count(*) FROM sqs_ingest_pipeline) AS pipelines;

-- A pipeline, of a method without a key: the masks shown below are the same everywhere.
CREATE ROLE regress_sqs_owner LOGIN;
CREATE ROLE regress_sqs_stranger;
GRANT EXECUTE ON FUNCTION sqs_ingest_check, sqs_ingest_preview(text, text, timestamptz), sqs_ingest_redrive, sqs_ingest_purge, sqs_ingest_forget
    TO regress_sqs_owner, regress_sqs_stranger;
GRANT EXECUTE ON PROCEDURE sqs_ingest_drain TO regress_sqs_owner, regress_sqs_stranger;
CREATE TABLE logins (user_id varchar(8) CHECK (user_id <> 'refused'), masked_ip varchar(32), app_version integer, create_date date);
ALTER TABLE logins OWNER TO regress_sqs_owner;
INSERT INTO sqs_ingest_pipeline (name, owner, target, mask_method, columns) VALUES ('regress', 'regress_sqs_owner', 'public.logins', 'md5',
    '[{"column": "user_id", "from": "/user_id", "required": true},
      {"column": "masked_ip", "from": "/ip", "required": true, "steps": ["ip", "mask"]},
      {"column": "app_version", "from": "/app_version", "steps": ["version"]},
      {"column": "create_date", "from": ["/create_date", "@sent_at"], "steps": ["date"]}]');
SELECT item, ok, CASE WHEN item NOT IN ('launcher', 'worker slots', 'keyring', 'durability') THEN detail END AS detail,
       CASE WHEN item NOT IN ('launcher', 'worker slots', 'keyring', 'durability') THEN hint END AS hint
  FROM sqs_ingest_check('regress');

-- a target that cannot be used
ALTER TABLE logins RENAME COLUMN app_version TO version;
SELECT item, ok, detail, hint FROM sqs_ingest_check('regress') WHERE item IN ('target', 'insert');
ALTER TABLE logins RENAME COLUMN version TO app_version;
ALTER TABLE logins ALTER masked_ip TYPE inet USING NULL;
SELECT item, ok, detail, hint FROM sqs_ingest_check('regress') WHERE item IN ('target', 'insert');
ALTER TABLE logins ALTER masked_ip TYPE varchar(32) USING NULL;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not on %', tg_table_name; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON logins EXECUTE FUNCTION refuse();
SELECT item, ok, detail, hint FROM sqs_ingest_check('regress') WHERE item IN ('target', 'insert');
DROP FUNCTION refuse() CASCADE;
UPDATE sqs_ingest_pipeline SET mask_method = 'rot13';
SELECT item, ok, detail, hint FROM sqs_ingest_check('regress') WHERE item IN ('configuration', 'target', 'insert');
UPDATE sqs_ingest_pipeline SET mask_method = 'md5';

-- preview: the row, or why there would be none
CREATE FUNCTION preview(body text) RETURNS text LANGUAGE sql AS -- the tokens of redacted fields are made with the keyring
    $$ SELECT regexp_replace((sqs_ingest_preview('regress', body, '2026-03-05 00:30:00+00') - 'columns')::text, 'hm\d+\.[0-9a-f]{64}', 'hm...', 'g') $$;
SELECT preview('{"user_id": "u1", "ip": "::FFFF:1.2.3.4", "app_version": "2.3.0"}');
SELECT preview('{"user_id": "u1", "ip": "1.2.3.4"}') LIKE '%"' || md5('1.2.3.4') || '"%' AS masked;
SELECT preview('{"user_id": "u1", "ip": "no address", "app_version": null, "create_date": "2024-02-29", "more": 1}');
SELECT preview(body) FROM (VALUES
    ('{"ip": "1.2.3.4"}'),
    ('{"user_id": null, "ip": "1.2.3.4"}'),
    ('{"user_id": "", "ip": "1.2.3.4"}'),
    ('{"user_id": "u1", "ip": ["1.2.3.4"]}'),
    ('{"user_id": "u1", "ip": "1.2.3.4", "app_version": "new"}'),
    ('{"user_id": "u1", "ip": "1.2.3.4", "create_date": "2023-02-29"}'),
    ('{"user_id": "123456789", "ip": "1.2.3.4"}'),
    ('{"user_id": "u1", "ip": "1.2.3.4\u0000"}'),
    ('{"user_id": "u1", "user_id": "u2", "ip": "1.2.3.4"}'),
    ('{"user_id": "u1"'), ('[1]'), ('')) AS bodies(body);
SELECT sqs_ingest_preview('regress', NULL) IS NULL AS nothing;
SELECT (SELECT count(*) FROM logins) + (SELECT count(*) FROM sqs_ingest_dead_letter) AS changed;

-- What could not become rows. No queue is needed to have some: these bodies are sealed by nobody.
CREATE FUNCTION bury(pipeline text, reason text, age interval, sealed bytea, n integer DEFAULT 1) RETURNS void LANGUAGE sql AS $$
    INSERT INTO sqs_ingest_dead_letter (pipeline, message_id, receive_count, reason, redacted, sealed, created_at)
        SELECT pipeline, 'message-' || i, 1, reason, '{}', sealed, now() - age FROM generate_series(1, n) AS i $$;
CREATE VIEW letters AS
    SELECT pipeline, reason, count(*), max(redrives) AS redrives FROM sqs_ingest_dead_letter GROUP BY 1, 2 ORDER BY 1, 2;
SELECT bury('regress', 'missing_field', '2 days', '\x00');
SELECT bury('regress', 'bad_date', '1 hour', ('\x01ffffffff' || repeat('00', 40))::bytea, 2);
SELECT bury('regress', 'too_long', '1 hour', ('\x01' || lpad(to_hex((SELECT max(id) FROM mask_keys())), 8, '0') || repeat('00', 40))::bytea);
SELECT bury('other', 'too_long', '1 hour', '\x00');
SELECT * FROM letters;

-- They are their pipeline owner's. Redriving, forgetting and draining write as the owner: nobody with more rights
-- than that may run them.
SELECT sqs_ingest_redrive('regress');
SELECT sqs_ingest_forget('u1', 'regress');
CALL sqs_ingest_drain('regress');
SET ROLE regress_sqs_stranger;
SELECT * FROM sqs_ingest_check('regress');
SELECT sqs_ingest_preview('regress', '{}');
CALL sqs_ingest_drain('regress');
SELECT sqs_ingest_redrive('regress');
SELECT sqs_ingest_purge('regress', older_than => '0');
SELECT sqs_ingest_purge('other', older_than => '0');
SELECT sqs_ingest_forget('u1', 'regress');
SELECT * FROM sqs_ingest_dead_letter;
SET ROLE regress_sqs_owner;
SELECT count(*) AS of_the_owner FROM sqs_ingest_dead_letter;

RESET ROLE;
ALTER TABLE logins OWNER TO CURRENT_USER;
UPDATE sqs_ingest_pipeline SET owner = current_user::regrole;

-- redrive: what cannot be opened stays as it is
SELECT sqs_ingest_redrive('regress', 'missing_field');
SELECT sqs_ingest_redrive('regress', 'bad_date');
SELECT sqs_ingest_redrive('regress', ids => '{4}');
SELECT sqs_ingest_redrive('regress', ids => '{}');
SELECT sqs_ingest_redrive('regress', older_than => '1 day', newer_than => '1 day');
SELECT sqs_ingest_redrive('regress', ids => '{1}', reason => 'too_long');
SELECT sqs_ingest_redrive('regress', max_letters => 0);
SELECT sqs_ingest_redrive(NULL);
SELECT sqs_ingest_redrive('other');
BEGIN READ ONLY;
SELECT sqs_ingest_redrive('regress');
ROLLBACK;
SELECT * FROM letters;

-- forget
INSERT INTO logins (user_id) VALUES ('u1'), ('u1'), ('u11'), (NULL);
SELECT sqs_ingest_forget('u1', 'regress');
SELECT sqs_ingest_forget('u1', 'regress');
SELECT sqs_ingest_forget('', 'regress');
SELECT sqs_ingest_forget(NULL, 'regress') IS NULL AS nobody;
SELECT sqs_ingest_forget('u1', 'other');
BEGIN READ ONLY;
SELECT sqs_ingest_forget('u1', 'regress');
ROLLBACK;
SELECT user_id FROM logins ORDER BY 1;
UPDATE sqs_ingest_pipeline SET columns = '[{"column": "masked_ip", "from": "/ip"}]';
SELECT sqs_ingest_forget('u1', 'regress');
-- a user whose id is masked
UPDATE sqs_ingest_pipeline SET columns = '[{"column": "user_id", "from": "/user_id", "steps": ["mask"]}]';
ALTER TABLE logins ALTER user_id TYPE text;
INSERT INTO logins (user_id) VALUES (md5('u2'));
SELECT sqs_ingest_forget('u2', 'regress') -> 'rows' AS rows;

-- purge
SELECT sqs_ingest_purge('regress');
SELECT sqs_ingest_purge(NULL, older_than => '0');
SELECT sqs_ingest_purge('nothing');
SELECT sqs_ingest_purge('regress', ids => '{}');
SELECT sqs_ingest_purge('regress', reason => 'nothing');
SELECT sqs_ingest_purge('regress', ids => '{2}', reason => 'bad_date');
BEGIN;
SELECT sqs_ingest_purge('regress', newer_than => '1 day');
SELECT * FROM letters;
ROLLBACK;
BEGIN READ ONLY;
SELECT sqs_ingest_purge('regress', older_than => '0');
ROLLBACK;
UPDATE sqs_ingest_pipeline SET dead_letter_retention = '1 day';
SELECT sqs_ingest_purge('regress');
SELECT sqs_ingest_purge('regress', newer_than => '1 day');
\set VERBOSITY terse
UPDATE sqs_ingest_pipeline SET dead_letter_retention = '0';
\set VERBOSITY default
SELECT sqs_ingest_purge('other', older_than => '0');
SELECT * FROM letters;

-- drain
CALL sqs_ingest_drain('regress');
CALL sqs_ingest_drain('regress', -1);
CALL sqs_ingest_drain(NULL);
CALL sqs_ingest_drain('other');
BEGIN;
CALL sqs_ingest_drain('regress');
ROLLBACK;
DO $$ BEGIN CALL sqs_ingest_drain('regress'); END $$;
CREATE FUNCTION call_drain() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL sqs_ingest_drain('regress'); END $$;
SELECT call_drain();
SET default_transaction_read_only = on;
CALL sqs_ingest_drain('regress');
RESET default_transaction_read_only;
-- not beside the workers
UPDATE sqs_ingest_pipeline SET queue_url = 'http://127.0.0.1:9/000000000000/regress';
SELECT sqs_ingest_start('regress');
CALL sqs_ingest_drain('regress');
SELECT sqs_ingest_stop('regress');

-- counters
SELECT sqs_ingest_stat_reset('nothing');
SELECT sqs_ingest_stat_reset();

DROP VIEW letters;
DROP FUNCTION bury, preview, call_drain;
DROP EXTENSION sqs_ingest;
DROP TABLE logins;
DROP OWNED BY regress_sqs_owner, regress_sqs_stranger;
DROP ROLE regress_sqs_owner, regress_sqs_stranger;
