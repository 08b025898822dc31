"""What stands in the documents, for tests that do it."""
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def fenced_blocks(markdown):
    """``` blocks, as (kind, text, number of the first line)."""
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    return [(match[1].strip(), match[2], markdown.count("\n", 0, match.start()) + 1) for match in found]


def indented_block(page, behind):
    """The first block of lines indented by four spaces behind a text, without the indentation."""
    text = (ROOT / page).read_text()
    assert text.count(behind) == 1, f"{page}: {behind}"
    block = re.search(r"\n\n((?:    [^\n]*\n|\n(?=    ))+)", text.split(behind)[1])[1]
    return re.sub(r"^    ", "", block, flags=re.MULTILINE)


def owner_grants():
    """Makes the role `ingester`, which needs no superuser for its pipelines."""
    return indented_block("docs/security.md", "**A role that runs its own pipelines.**")


def operator_grants():
    """Makes the role `operator`, which runs what a superuser made."""
    return indented_block("docs/security.md", "**A role that runs a pipeline which a superuser made.**")
