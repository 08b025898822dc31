-- What the extension puts into a database, and who may use it.

-- its objects, and that each one says what it is
SELECT pg_describe_object(d.classid, d.objid, 0) COLLATE "C" AS object,
       COALESCE(obj_description(d.objid, d.classid::regclass::name), '(none)') AS comment
  FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'sqs_ingest'
       AND d.classid <> 'pg_type'::regclass -- row types, members of extensions from 17 on
       AND NOT EXISTS (SELECT FROM pg_class WHERE oid = d.objid AND relkind = 'S')
 ORDER BY 1;
-- the columns that do not
SELECT attrelid::regclass AS relation, attname
  FROM pg_attribute
 WHERE attrelid IN ('sqs_ingest_pipeline'::regclass, 'sqs_ingest_ledger'::regclass, 'sqs_ingest_dead_letter'::regclass,
                    'sqs_ingest_key'::regclass, 'sqs_ingest_unmask_audit'::regclass, 'pg_stat_sqs_ingest'::regclass)
       AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
SELECT obj_description(oid, 'pg_extension') AS extension FROM pg_extension WHERE extname = 'sqs_ingest';

-- what is dumped
SELECT relation::regclass::text COLLATE "C" AS relation, condition
  FROM pg_extension, unnest(extconfig, extcondition) AS dumped(relation, condition)
 WHERE extname = 'sqs_ingest' ORDER BY 1;

-- functions
SELECT p.oid::regprocedure::text COLLATE "C" AS function, p.prorettype::regtype AS result,
       p.provolatile AS volatility, p.proisstrict AS strict, p.proparallel AS parallel,
       p.prosecdef AS definer, p.proconfig AS config
  FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
       JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
 WHERE e.extname = 'sqs_ingest' ORDER BY 1;

-- tables and the view
SELECT attrelid::regclass::text COLLATE "C" AS relation, attnum, attname, format_type(atttypid, atttypmod) AS type,
       attnotnull AS not_null
  FROM pg_attribute
 WHERE attrelid IN ('sqs_ingest_pipeline'::regclass, 'sqs_ingest_ledger'::regclass, 'sqs_ingest_dead_letter'::regclass,
                    'sqs_ingest_key'::regclass, 'sqs_ingest_unmask_audit'::regclass, 'pg_stat_sqs_ingest'::regclass) AND attnum > 0 AND NOT attisdropped
 ORDER BY 1, 2;

-- rows: who sees which, and that nobody but the extension's owner changes them
SELECT c.relname, c.relrowsecurity AS row_security, p.polname AS policy, p.polcmd AS command, p.polpermissive AS permissive,
       p.polroles = '{0}' AS everybody, obj_description(p.oid, 'pg_policy') AS comment
  FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid
 WHERE c.relname LIKE 'sqs\_ingest\_%' AND c.relkind = 'r' ORDER BY 1;
SELECT tgrelid::regclass AS relation, tgname, tgenabled AS enabled, obj_description(oid, 'pg_trigger') AS comment
  FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text LIKE 'sqs\_ingest%';

-- rights: nothing that touches a key or a pipeline is everybody's
CREATE ROLE regress_sqs_nobody;
CREATE ROLE regress_sqs_monitor IN ROLE pg_monitor;
SELECT role, object, rights
  FROM (SELECT r.role, p.oid::regprocedure::text COLLATE "C" AS object,
               CASE WHEN has_function_privilege(r.role, p.oid, 'EXECUTE') THEN 'EXECUTE' END AS rights
          FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
               JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid,
               (VALUES ('regress_sqs_nobody'), ('regress_sqs_monitor')) AS r(role)
         WHERE e.extname = 'sqs_ingest'
        UNION ALL
        SELECT r.role, c.oid::regclass::text,
               NULLIF(concat_ws(', ',
                      CASE WHEN has_table_privilege(r.role, c.oid, 'SELECT') THEN 'SELECT' END,
                      CASE WHEN has_table_privilege(r.role, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') THEN 'CHANGE' END), '')
          FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
               JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid,
               (VALUES ('regress_sqs_nobody'), ('regress_sqs_monitor')) AS r(role)
         WHERE e.extname = 'sqs_ingest' AND c.relkind IN ('r', 'v')) AS everything
 WHERE rights IS NOT NULL ORDER BY 1, 2;

SET ROLE regress_sqs_nobody;
SELECT mask('1.2.3.4');
SELECT mask('1.2.3.4', 'sha256');
SELECT mask('1.2.3.4'::inet);
SELECT mask_candidates('1.2.3.4');
SELECT mask_candidates('1.2.3.4', 'sha256');
SELECT mask_candidates('1.2.3.4'::inet);
SELECT mask_rewrap('sv1.');
SELECT unmask('sv1.', 'regression test');
SELECT * FROM mask_keys();
SELECT * FROM sqs_ingest_check();
SELECT sqs_ingest_preview('user_logins', '{}');
SELECT sqs_ingest_preview('user_logins', '{}', now(), '{}');
SELECT sqs_ingest_create_pipeline('user_logins', 'http://127.0.0.1:9/000000000000/regress', 'pg_class');
SELECT sqs_ingest_alter_pipeline('user_logins', workers => 2);
SELECT sqs_ingest_drop_pipeline('user_logins');
CALL sqs_ingest_drain();
SELECT sqs_ingest_redrive();
SELECT sqs_ingest_purge();
SELECT sqs_ingest_forget('x');
SELECT sqs_ingest_stat_reset();
SELECT * FROM sqs_ingest_key;
SELECT * FROM sqs_ingest_unmask_audit;
SELECT sqs_ingest_create_keyring();
SELECT sqs_ingest_status();
SELECT * FROM pg_stat_sqs_ingest;
SELECT * FROM sqs_ingest_dead_letter;
SELECT sqs_ingest_preloaded();
-- a granted keyring is still the superuser's to make
RESET ROLE;
GRANT EXECUTE ON FUNCTION sqs_ingest_create_keyring() TO regress_sqs_nobody;
SET ROLE regress_sqs_nobody;
SELECT sqs_ingest_create_keyring();
SET ROLE regress_sqs_monitor;
SELECT mask('1.2.3.4');
SELECT unmask('sv1.', 'regression test');
SELECT sqs_ingest_stat_reset();
SELECT sqs_ingest_status();
SELECT count(*) FROM pg_stat_sqs_ingest;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION sqs_ingest_create_keyring() FROM regress_sqs_nobody;

-- settings
SELECT name, vartype AS type, boot_val AS "default", unit, min_val AS min, max_val AS max, context
  FROM pg_settings WHERE name LIKE 'sqs\_ingest.%' ORDER BY name COLLATE "C";
-- paths are not shown to everybody
SET ROLE regress_sqs_nobody;
SELECT name FROM pg_settings WHERE name LIKE 'sqs\_ingest.%' ORDER BY name COLLATE "C";
RESET ROLE;

DROP ROLE regress_sqs_nobody, regress_sqs_monitor;

-- Which versions there are, and how one comes to this one. An upgrade leaves what an installation makes: test_upgrade.py.
SELECT version, installed, superuser, trusted, relocatable, schema, requires
  FROM pg_available_extension_versions WHERE name = 'sqs_ingest' AND version !~ 'test' ORDER BY version COLLATE "C";
SELECT source, target, path FROM pg_extension_update_paths('sqs_ingest')
 WHERE source !~ 'test' AND target !~ 'test' ORDER BY source COLLATE "C", target COLLATE "C";

-- The extension goes without a trace, and works in a schema that needs quotes.
DROP EXTENSION sqs_ingest;
SELECT proname FROM pg_proc WHERE proname LIKE 'sqs\_ingest%' OR proname IN ('mask', 'mask_candidates', 'mask_rewrap', 'mask_keys', 'unmask');
SELECT relname FROM pg_class WHERE relname LIKE '%sqs\_ingest%';
SELECT polname FROM pg_policy WHERE polname LIKE 'sqs\_ingest%';
CREATE SCHEMA "Sqs Ingest";
CREATE EXTENSION sqs_ingest SCHEMA "Sqs Ingest";
-- without a row: rows would be in the way of pg_restore
SELECT (SELECT count(*) FROM "Sqs Ingest".sqs_ingest_pipeline) + (SELECT count(*) FROM "Sqs Ingest".sqs_ingest_ledger) +
       (SELECT count(*) FROM "Sqs Ingest".sqs_ingest_dead_letter) + (SELECT count(*) FROM "Sqs Ingest".sqs_ingest_key) +
       (SELECT count(*) FROM "Sqs Ingest".sqs_ingest_unmask_audit) AS rows;
SELECT "Sqs Ingest".mask('x', 'md5') = md5('x') AS masks, "Sqs Ingest".sqs_ingest_status(),
       (SELECT count(*) FROM "Sqs Ingest".pg_stat_sqs_ingest) AS pipelines;
SELECT "Sqs Ingest".unmask("Sqs Ingest".mask('x', 'siv'), 'regression test') AS unmasked;
SELECT count(*) AS audited, (SELECT count(*) > 0 FROM "Sqs Ingest".mask_keys()) AS keys FROM "Sqs Ingest".sqs_ingest_unmask_audit;
INSERT INTO "Sqs Ingest".sqs_ingest_pipeline (name, owner, target, columns, mask_method)
    VALUES ('quoted', current_user::regrole, '"Sqs Ingest".logins', '[{"column": "user_id", "from": "/user_id"}]', 'md5');
CREATE TABLE "Sqs Ingest".logins (user_id text);
SELECT item FROM "Sqs Ingest".sqs_ingest_check('quoted') WHERE item IN ('configuration', 'target', 'insert') AND ok ORDER BY 1;
SELECT "Sqs Ingest".sqs_ingest_preview('quoted', '{"user_id": "x"}'), "Sqs Ingest".sqs_ingest_redrive('quoted'),
       "Sqs Ingest".sqs_ingest_purge('quoted', older_than => '0'), "Sqs Ingest".sqs_ingest_forget('x', 'quoted');
DROP TABLE "Sqs Ingest".logins;
DROP EXTENSION sqs_ingest;
DROP SCHEMA "Sqs Ingest";
CREATE EXTENSION sqs_ingest;
