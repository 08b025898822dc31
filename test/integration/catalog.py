"""What the catalog knows of the extension, as lines of text: two databases have the same extension if these are equal.

catalog(db) has a line for each fact about a member of the extension and about what hangs on members (columns,
constraints, indexes, triggers, policies, rules, types, sequences): "identity: fact: value". No line has an OID in it.
Left out is what says nothing about the extension: statistics, storage, and the values that old rows have in columns
added later.
"""
import re

FACTS = r"""
WITH RECURSIVE extension AS (
    SELECT * FROM pg_extension WHERE extname = 'sqs_ingest'
), direct AS (
    SELECT d.classid, d.objid FROM pg_depend d, extension e
     WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
), objects AS (  -- the members, and what came with them and goes with them
    SELECT * FROM direct
    UNION
    SELECT d.classid, d.objid FROM pg_depend d JOIN objects o ON d.refclassid = o.classid AND d.refobjid = o.objid
     WHERE d.deptype IN ('a', 'i', 'P', 'S')
), member AS (
    SELECT o.*, (pg_identify_object(o.classid, o.objid, 0)).identity FROM objects o
), granted(classid, objid, part, fact, acl) AS (
    SELECT m.classid, m.objid, '', 'acl', c.relacl FROM member m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass
    UNION ALL
    SELECT m.classid, m.objid, '', 'acl', p.proacl FROM member m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
    UNION ALL
    SELECT m.classid, m.objid, '', 'acl', t.typacl FROM member m JOIN pg_type t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass
    UNION ALL
    SELECT m.classid, m.objid, '.' || a.attname, 'acl', a.attacl
      FROM member m JOIN pg_attribute a ON a.attrelid = m.objid AND m.classid = 'pg_class'::regclass
    UNION ALL
    SELECT m.classid, m.objid, format('.%s', i.objsubid), format('initial acl (%s)', i.privtype), i.initprivs
      FROM member m JOIN pg_init_privs i ON i.classoid = m.classid AND i.objoid = m.objid
), facts(identity, fact, value) AS (
    SELECT 'extension', e.key, e.value
      FROM extension x, jsonb_each_text(to_jsonb(x) - '{oid,extowner,extnamespace,extconfig}'::text[] || jsonb_build_object(
               'owner', x.extowner::regrole, 'schema', x.extnamespace::regnamespace, 'config', x.extconfig::regclass[],
               'comment', obj_description(x.oid, 'pg_extension'))) e
    UNION ALL
    SELECT m.identity, 'is a', (pg_identify_object(m.classid, m.objid, 0)).type FROM member m
    UNION ALL  -- what it depends on, and how
    SELECT m.identity, format('depends as %s, part %s', d.deptype, coalesce(a.attname, d.objsubid::text)),
           pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
      FROM member m JOIN pg_depend d USING (classid, objid)
           LEFT JOIN pg_attribute a ON d.classid = 'pg_class'::regclass AND a.attrelid = d.objid AND a.attnum = d.objsubid
                                       AND d.objsubid > 0
    UNION ALL  -- owners and roles in grants; what was granted after CREATE EXTENSION is not the extension's
    SELECT m.identity, format('depends as %s', s.deptype), pg_describe_object(s.refclassid, s.refobjid, 0)
      FROM member m JOIN pg_shdepend s USING (classid, objid)
     WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT m.identity || coalesce('.' || a.attname, ''), 'comment', d.description
      FROM member m JOIN pg_description d ON d.classoid = m.classid AND d.objoid = m.objid
           LEFT JOIN pg_attribute a ON d.classoid = 'pg_class'::regclass AND a.attrelid = d.objoid AND a.attnum = d.objsubid
                                       AND d.objsubid > 0
    UNION ALL
    SELECT m.identity || g.part, g.fact,
           coalesce((SELECT string_agg(format('%s to %s by %s%s', a.privilege_type, coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC'),
                                              a.grantor::regrole, CASE WHEN a.is_grantable THEN ' with grant option' END),
                                       ', ' ORDER BY a.privilege_type, a.grantee, a.grantor)
                       FROM aclexplode(g.acl) a), CASE WHEN g.acl IS NULL THEN 'default' ELSE 'nobody' END)
      FROM granted g JOIN member m USING (classid, objid)
    UNION ALL  -- relations
    SELECT m.identity, r.key, r.value
      FROM member m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass,
           jsonb_each_text(to_jsonb(c) - '{oid,relnamespace,reltype,reloftype,relowner,relam,relfilenode,reltoastrelid,relacl,
                                           relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid}'::text[]
               || jsonb_build_object('owner', c.relowner::regrole, 'has toast', c.reltoastrelid <> 0,
                                     'access method', (SELECT amname FROM pg_am WHERE oid = c.relam))) r
    UNION ALL
    SELECT m.identity, r.fact, r.value
      FROM member m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass,
           LATERAL (VALUES ('view', CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END),
                           ('index', CASE WHEN c.relkind = 'i' THEN pg_get_indexdef(c.oid) END),
                           ('index state', (SELECT (to_jsonb(i) - '{indexrelid,indrelid,indcollation,indclass,indexprs,indpred}'::text[])::text
                                              FROM pg_index i WHERE i.indexrelid = c.oid)),
                           ('sequence', (SELECT (to_jsonb(s) - 'seqrelid')::text FROM pg_sequence s WHERE s.seqrelid = c.oid))
           ) AS r(fact, value)
     WHERE r.value IS NOT NULL
    UNION ALL  -- their columns, dropped ones too
    SELECT m.identity || '.' || a.attname, r.key, r.value
      FROM member m JOIN pg_attribute a ON a.attrelid = m.objid AND m.classid = 'pg_class'::regclass AND a.attnum > 0
           LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum,
           jsonb_each_text(to_jsonb(a) - '{attrelid,atttypid,attcollation,attacl,atthasmissing,attmissingval,attcacheoff}'::text[]
               || jsonb_build_object('type', format_type(a.atttypid, a.atttypmod), 'default', pg_get_expr(d.adbin, d.adrelid),
                                     'collation', (SELECT collname FROM pg_collation WHERE oid = a.attcollation))) r
    UNION ALL
    SELECT m.identity, r.fact, r.value
      FROM member m JOIN pg_constraint k ON k.oid = m.objid AND m.classid = 'pg_constraint'::regclass,
           LATERAL (VALUES ('constraint', pg_get_constraintdef(k.oid)),
                           ('state', concat_ws(' ', k.condeferrable, k.condeferred, k.convalidated, k.conislocal, k.coninhcount,
                                               k.connoinherit, k.conkey))) AS r(fact, value)
    UNION ALL
    SELECT m.identity, r.fact, r.value
      FROM member m JOIN pg_trigger t ON t.oid = m.objid AND m.classid = 'pg_trigger'::regclass,
           LATERAL (VALUES ('trigger', pg_get_triggerdef(t.oid)), ('enabled', t.tgenabled::text),
                           ('internal', t.tgisinternal::text)) AS r(fact, value)
    UNION ALL
    SELECT m.identity, r.fact, r.value
      FROM member m JOIN pg_policy p ON p.oid = m.objid AND m.classid = 'pg_policy'::regclass,
           LATERAL (VALUES ('command', concat_ws(' ', p.polcmd, p.polpermissive, p.polroles::regrole[])),
                           ('using', pg_get_expr(p.polqual, p.polrelid)),
                           ('check', pg_get_expr(p.polwithcheck, p.polrelid))) AS r(fact, value)
    UNION ALL
    SELECT m.identity, 'rule', concat_ws(' ', w.ev_type, w.ev_enabled, w.is_instead, pg_get_ruledef(w.oid))
      FROM member m JOIN pg_rewrite w ON w.oid = m.objid AND m.classid = 'pg_rewrite'::regclass
    UNION ALL
    SELECT m.identity, r.key, r.value
      FROM member m JOIN pg_type t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass,
           jsonb_each_text(to_jsonb(t) - '{oid,typnamespace,typowner,typrelid,typarray,typelem,typacl}'::text[]
               || jsonb_build_object('owner', t.typowner::regrole)) r
    UNION ALL  -- functions; the types of all their arguments are Postgres' own
    SELECT m.identity, r.key, r.value
      FROM member m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass,
           jsonb_each_text(to_jsonb(p) - '{oid,pronamespace,proowner,proacl,proargdefaults,prosqlbody}'::text[]
               || jsonb_build_object('owner', p.proowner::regrole, 'definition', pg_get_functiondef(p.oid),
                                     'arguments', pg_get_function_arguments(p.oid), 'body', pg_get_function_sqlbody(p.oid))) r
)
SELECT format('%s: %s: %s', identity, fact, value) FROM facts ORDER BY 1
"""


def catalog(db):
    """Of the extension in this database; the same for two databases in which it is the same, down to the comments."""
    # Some minor releases stamp each attribute with a number of their own, which is another in every catalog.
    stamped = re.compile(r': attoptions: \["pg_attver=\d+"\]$')
    return [re.sub(r"pg_toast_\d+", "pg_toast", line) for (line,) in db.sql(FACTS) if not stamped.search(line)]


def differences(one, other):
    """What is in one catalog and not in the other, both ways: short enough to be read in a failed test."""
    return [f"- {line}" for line in sorted(set(one) - set(other))] + [f"+ {line}" for line in sorted(set(other) - set(one))]
