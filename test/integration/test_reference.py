"""docs/reference.md says what the catalog says."""
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def test_reference_is_what_the_catalog_says(db):
    db.sql("CREATE EXTENSION sqs_ingest")
    made = db.value((ROOT / "scripts/lib/reference.sql").read_text())
    assert made == (ROOT / "docs/reference.md").read_text(), "run scripts/make-reference"


def test_every_object_of_the_extension_has_a_comment(db):
    db.sql("CREATE EXTENSION sqs_ingest")
    silent = db.sql(
        """SELECT pg_describe_object(d.classid, d.objid, 0)
             FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
            WHERE e.extname = 'sqs_ingest' AND d.deptype = 'e' AND obj_description(d.objid, d.classid::regclass::name) IS NULL
              AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass)
              AND NOT EXISTS (SELECT FROM pg_class s WHERE s.oid = d.objid AND s.relkind = 'S')
           UNION ALL
           SELECT format('%s.%s', c.relname, a.attname)
             FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
             JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'v')
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
            WHERE e.extname = 'sqs_ingest' AND d.deptype = 'e' AND col_description(c.oid, a.attnum) IS NULL"""
    )
    assert silent == []


def test_grants_that_the_security_document_names_can_be_run_as_they_stand(db):
    db.sql("CREATE EXTENSION sqs_ingest")
    db.sql("CREATE TABLE user_logins (user_id text)")
    grants = re.findall(r"^    (GRANT [^;]*;)", (ROOT / "docs/security.md").read_text(), re.MULTILINE)
    assert len(grants) >= 6
    with db.connect(autocommit=False) as session:
        for role in sorted({role for grant in grants for role in re.findall(r" TO (\w+);", grant)}):
            session.execute(f"CREATE ROLE {role}")
        for grant in grants:
            session.execute(grant)
        session.rollback()
