-- sqs_ingest_start() and sqs_ingest_stop(), as far as they go without an SQS server. The cluster must not have
-- sqs_ingest.queue_url set. Whatever is really started here polls a closed port of this machine.

-- settings: refused with the reason
ALTER SYSTEM SET sqs_ingest.queue_url = 'ftp://x';
ALTER SYSTEM SET sqs_ingest.queue_url = 'login-queue';
ALTER SYSTEM SET sqs_ingest.queue_url = 'https:///123456789012/login-queue';
ALTER SYSTEM SET sqs_ingest.queue_url = 'https://key:secret@sqs.us-east-1.amazonaws.com/123456789012/login-queue';
ALTER SYSTEM SET sqs_ingest.queue_url = 'https://sqs.us-east-1.amazonaws.com/?Action=ReceiveMessage';
ALTER SYSTEM SET sqs_ingest.endpoint_url = 'http://127.0.0.1:70000';
ALTER SYSTEM SET sqs_ingest.endpoint_url = 'unix:///var/run/sqs';
ALTER SYSTEM SET sqs_ingest.region = 'US East';
ALTER SYSTEM SET sqs_ingest.mask_method = 'rot13';
ALTER SYSTEM SET sqs_ingest.mask_method = 'sha256:65';
ALTER SYSTEM SET sqs_ingest.mask_method = '';
ALTER SYSTEM SET sqs_ingest.max_workers = 0;
ALTER SYSTEM SET sqs_ingest.max_workers = 65;
ALTER SYSTEM SET sqs_ingest.enabled = 'perhaps';
-- none of them is a session's, and there are no others
SET sqs_ingest.mask_method = 'md5';
SET sqs_ingest.queue_url = '';
SET sqs_ingest.nonsense = 1;

-- there is nothing to stop, and nothing to start
SELECT sqs_ingest_stop();
SELECT sqs_ingest_stop('other');
SELECT sqs_ingest_start('other');
SELECT sqs_ingest_start(NULL) IS NULL AS strict;

-- no queue
SELECT sqs_ingest_start();
-- that was rolled back with what it had made
SELECT to_regclass('user_logins') AS target, (SELECT count(*) FROM sqs_ingest_pipeline) AS pipelines;

-- From here on pipelines have a queue.
ALTER TABLE sqs_ingest_pipeline ALTER queue_url SET DEFAULT 'http://127.0.0.1:9/000000000000/regress';

CREATE VIEW enabled AS
    SELECT count(*) AS databases FROM pg_shseclabel
     WHERE provider = 'sqs_ingest' AND classoid = 'pg_database'::regclass
           AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database());
CREATE VIEW pipelines AS
    SELECT name, queue_url, target, mask_method, workers, (SELECT databases FROM enabled) AS enabled
      FROM sqs_ingest_pipeline;

-- a start that is rolled back leaves nothing
BEGIN;
SELECT sqs_ingest_start();
SELECT * FROM pipelines;
ROLLBACK;
SELECT to_regclass('user_logins') AS target, (SELECT count(*) FROM sqs_ingest_pipeline) AS pipelines,
       (SELECT databases FROM enabled) AS enabled;
BEGIN;
SAVEPOINT s;
SELECT sqs_ingest_start();
ROLLBACK TO s;
COMMIT;
SELECT to_regclass('user_logins') AS target, (SELECT count(*) FROM sqs_ingest_pipeline) AS pipelines,
       (SELECT databases FROM enabled) AS enabled;

-- it cannot wait for somebody's COMMIT PREPARED
BEGIN;
SELECT sqs_ingest_start();
PREPARE TRANSACTION 'regress_sqs';
SELECT * FROM pipelines;

-- a target with something missing
CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256));
SELECT sqs_ingest_start();
DROP TABLE user_logins;
CREATE TABLE user_logins (user_id uuid, device_type varchar(32), masked_ip inet,
                          masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date);
SELECT sqs_ingest_start();
DROP TABLE user_logins;

-- another key than the one that this database was used with
INSERT INTO sqs_ingest_key (id, fingerprint) SELECT id, 'of another key' FROM mask_keys();
DO $$
BEGIN
    PERFORM sqs_ingest_start();
EXCEPTION WHEN config_file_error THEN
    RAISE NOTICE '%', regexp_replace(SQLERRM, '"/.*"', '"..."');
END
$$;
DELETE FROM sqs_ingest_key;

-- somebody else's table: its triggers would run with our rights
CREATE ROLE regress_sqs_stranger;
CREATE ROLE regress_sqs_owner LOGIN;
GRANT CREATE ON SCHEMA public TO regress_sqs_owner, regress_sqs_stranger;
CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
                          masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date);
ALTER TABLE user_logins OWNER TO regress_sqs_stranger;
GRANT EXECUTE ON FUNCTION sqs_ingest_start(text), sqs_ingest_stop(text) TO regress_sqs_owner;
SET ROLE regress_sqs_owner;
SELECT sqs_ingest_start();
RESET ROLE;
SELECT * FROM pipelines;
DROP TABLE user_logins;

-- a role without the rights
SET ROLE regress_sqs_stranger;
SELECT sqs_ingest_start();
SELECT sqs_ingest_stop();
SELECT * FROM sqs_ingest_pipeline;
RESET ROLE;

-- A role with them starts, and owns what that makes; again is no error.
SET ROLE regress_sqs_owner;
SELECT sqs_ingest_start();
SELECT sqs_ingest_start();
RESET ROLE;
SELECT *, (SELECT owner FROM sqs_ingest_pipeline) AS owner FROM pipelines;
SELECT relowner::regrole FROM pg_class WHERE oid = 'user_logins'::regclass;
SELECT jsonb_pretty(columns) FROM sqs_ingest_pipeline;

-- It is not another one's to start or stop, though that one may call the functions.
GRANT EXECUTE ON FUNCTION sqs_ingest_start(text), sqs_ingest_stop(text) TO regress_sqs_stranger;
SET ROLE regress_sqs_stranger;
SELECT sqs_ingest_start();
SELECT sqs_ingest_stop();
RESET ROLE;

-- one queue feeds one pipeline
INSERT INTO sqs_ingest_pipeline (name, owner, target, columns, mask_method)
    SELECT 'second', owner, target, columns, mask_method FROM sqs_ingest_pipeline;
DO $$
BEGIN
    FOR i IN 1..300 LOOP
        EXIT WHEN EXISTS (SELECT FROM pg_stat_sqs_ingest WHERE pipeline = 'user_logins' AND state <> 'starting');
        PERFORM pg_sleep(0.1);
    END LOOP;
END
$$;
SELECT sqs_ingest_start('second');

-- a row that cannot be run
UPDATE sqs_ingest_pipeline SET queue_url = 'gopher://x' WHERE name = 'second';
SELECT sqs_ingest_start('second');
UPDATE sqs_ingest_pipeline SET queue_url = 'http://127.0.0.1:9/000000000000/second', mask_method = 'rot13'
 WHERE name = 'second';
SELECT sqs_ingest_start('second');
UPDATE sqs_ingest_pipeline SET mask_method = 'md5', columns = '[{"column": "user_id", "from": "user_id"}]'
 WHERE name = 'second';
SELECT sqs_ingest_start('second');
UPDATE sqs_ingest_pipeline SET columns = '[{"column": "user_id", "from": "/user_id"}]', target = 'public.nowhere'
 WHERE name = 'second';
SELECT sqs_ingest_start('second');
\set VERBOSITY terse
UPDATE sqs_ingest_pipeline SET workers = 17 WHERE name = 'second';
\set VERBOSITY default
DELETE FROM sqs_ingest_pipeline WHERE name = 'second';

-- Stopping is undone by a rollback, and done by a commit.
BEGIN;
SELECT sqs_ingest_stop();
ROLLBACK;
BEGIN;
SELECT sqs_ingest_stop();
PREPARE TRANSACTION 'regress_sqs';
BEGIN;
UPDATE sqs_ingest_pipeline SET workers = 2;
PREPARE TRANSACTION 'regress_sqs';
SELECT databases FROM enabled;
SET ROLE regress_sqs_owner;
SELECT sqs_ingest_stop();
SELECT sqs_ingest_stop();
RESET ROLE;
SELECT databases FROM enabled;
SELECT pipeline, state, why, hint, workers, target, received, in_hand FROM pg_stat_sqs_ingest WHERE pipeline = 'user_logins';

-- DROP EXTENSION disables, and leaves the target alone.
SELECT sqs_ingest_start();
SELECT databases FROM enabled;
ALTER TABLE sqs_ingest_pipeline ALTER queue_url DROP DEFAULT;
DROP VIEW pipelines;
DROP EXTENSION sqs_ingest;
SELECT databases FROM enabled;
SELECT count(*) FROM user_logins;

DROP VIEW enabled;
DROP TABLE user_logins;
DROP OWNED BY regress_sqs_owner, regress_sqs_stranger;
DROP ROLE regress_sqs_owner, regress_sqs_stranger;
