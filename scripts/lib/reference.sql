-- docs/reference.md, out of the catalog of a database with the extension on a server that has it preloaded.
-- scripts/make-reference writes the file; test/integration/test_reference.py compares it.
WITH extension AS (
    SELECT oid FROM pg_extension WHERE extname = 'sqs_ingest'
), members AS (
    SELECT d.classid, d.objid FROM pg_depend d, extension e
     WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
), lines(part, position, line) AS (
    VALUES (1, '1', '# Reference'),
           (1, '2', ''),
           (1, '3', 'Settings, functions, tables and the view, as their comments in the catalog say. Made by `scripts/make-reference`:'),
           (1, '4', 'do not edit. The [README](../README.md) explains how they are used, [operations.md](operations.md) what the'),
           (1, '5', 'states and log lines mean, [security.md](security.md) who is to be granted what.'),
           (1, '6', ''),
           (2, '1', '## Settings'),
           (2, '2', ''),
           (2, '3', 'In `postgresql.conf` or by `ALTER SYSTEM`.'),
           (2, '4', ''),
           (2, '5', '| setting | type | default | range | takes effect | what it is |'),
           (2, '6', '|---|---|---|---|---|---|'),
           (4, '1', ''),
           (4, '2', '## Functions'),
           (4, '3', ''),
           (4, '4', '| function | returns | may be called by | what it does |'),
           (4, '5', '|---|---|---|---|'),
           (6, '1', ''),
           (6, '2', '## Tables and view'),
           (6, '3', '')
    UNION ALL
    SELECT 3, name,
           format('| `%s` | %s | %s | %s | %s | %s |', name, vartype,
                  CASE WHEN boot_val = '' THEN 'empty' ELSE format('`%s`', boot_val) END,
                  CASE WHEN min_val IS NULL THEN '' ELSE format('%s to %s', min_val, max_val) END,
                  CASE context WHEN 'sighup' THEN 'reload' WHEN 'postmaster' THEN 'restart' ELSE context END,
                  concat_ws(' ', short_desc, extra_desc))
      FROM pg_settings WHERE name LIKE 'sqs\_ingest.%'
    UNION ALL
    SELECT 5, p.proname || ' ' || pg_get_function_identity_arguments(p.oid),
           format('| `%s%s(%s)` | %s | %s | %s |', CASE p.prokind WHEN 'p' THEN 'CALL ' ELSE '' END, p.proname,
                  (SELECT coalesce(string_agg(a.argument, ', ' ORDER BY a.n), '')
                     FROM regexp_split_to_table(regexp_replace(pg_get_function_arguments(p.oid),
                                                            '\mIN |::(text|bigint|interval|integer|boolean|jsonb|regclass)\M(\[\])?', '', 'g'), ', ')
                          WITH ORDINALITY AS a(argument, n)
                    WHERE a.argument NOT LIKE 'OUT %'),
                  CASE WHEN p.prokind = 'p' THEN ''
                       WHEN p.proretset THEN format('rows (`%s`)', (
                            SELECT string_agg(p.proargnames[n], '`, `' ORDER BY n)
                              FROM generate_subscripts(p.proargmodes, 1) n WHERE p.proargmodes[n] = 'o'))
                       ELSE format('`%s`', pg_get_function_result(p.oid)) END,
                  CASE WHEN has_function_privilege('public', p.oid, 'EXECUTE') THEN 'everybody'
                       WHEN has_function_privilege('pg_monitor', p.oid, 'EXECUTE') THEN '`pg_monitor`, pipeline owners'
                       ELSE 'whom it is granted to' END,
                  obj_description(p.oid, 'pg_proc'))
      FROM pg_proc p JOIN members m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
     WHERE p.prorettype <> 'trigger'::regtype
    UNION ALL
    SELECT 7, c.relname || ' 1',
           format(E'### %s `%s`\n\n%s.\n\n| column | type | what it is |\n|---|---|---|',
                  CASE c.relkind WHEN 'v' THEN 'View' ELSE 'Table' END, c.relname,
                  upper(left(obj_description(c.oid, 'pg_class'), 1)) || substr(obj_description(c.oid, 'pg_class'), 2))
      FROM pg_class c JOIN members m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
     WHERE c.relkind IN ('r', 'v')
    UNION ALL
    SELECT 7, c.relname || ' 2 ' || to_char(a.attnum, '000'),
           format('| `%s` | %s | %s |', a.attname, format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum))
      FROM pg_class c JOIN members m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'v')
    UNION ALL
    SELECT 7, c.relname || ' 3', '' FROM pg_class c JOIN members m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
     WHERE c.relkind IN ('r', 'v')
)
SELECT rtrim(string_agg(line, E'\n' ORDER BY part, position COLLATE "C"), E'\n') || E'\n' FROM lines
