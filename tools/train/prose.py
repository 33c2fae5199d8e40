"""English prose from documentation pages: headings and paragraphs, without code, tables, navigation and indices."""
import gzip
import pathlib
import re

import lxml.html

DROPPED = ("pre", "table", "nav", "script", "style", "footer", "header", "form", "svg", "math", "noscript", "button", "head",
           "figure", "info", "code-block", "screen", "synopsis", "media", "links")
DROPPED_CLASSES = {"highlight", "literal-block", "toc", "toctree-wrapper", "navheader", "navfooter", "sphinxsidebar", "related",
                   "footer", "programlisting", "screen", "wy-nav-side", "breadcrumb", "genindextable", "itemizedlist-toc"}
BLOCKS = {"p", "li", "dd", "h1", "h2", "h3", "h4", "title"}
HEADINGS = {"h1", "h2", "h3", "h4", "title"}
CHARACTERS = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": " - ",
                            "\u2026": "...", "\u00a0": " ", "\u00ad": None, "\u200b": None, "\u00b6": None,
                            "\u2212": "-", "\ufeff": None})
COMMON = frozenset("the of to and a in is that for it as be are this with on by or not an if can you from have will which "
                   "when at we all but they one may has was so use used no more there than other your".split())
SYMBOLS = re.compile(r"[{}<>|\\_=;#$@~^\[\]*+&/]")


def clean(text: str) -> str:
    return re.sub(r"\s+", " ", text.translate(CHARACTERS)).strip()


def is_prose(text: str) -> bool:
    """Whole sentences of ordinary English words."""
    if not 50 <= len(text) <= 3000 or not (text[0].isupper() or text[0] in "\"'(") or text[-1] not in ".!?\"')":
        return False
    words = text.lower().split()
    common = sum(word in COMMON for word in words)
    letters = sum(c.isalpha() or c == " " for c in text)
    return (len(words) >= 9 and common >= 0.25 * len(words) and letters >= 0.92 * len(text) and text.isascii()
            and len(SYMBOLS.findall(text)) <= 0.012 * len(text) and max(map(len, words)) <= 30)


def clean_heading(text: str) -> str:
    text = re.sub(r"^(chapter |appendix )?[0-9A-Z]{0,3}(\.[0-9]+)*\.?\s+(?=\S)", "", text, flags=re.I) or text
    plain = len(text) <= 60 and len(text.split()) >= 2 and text.isascii() and not re.search(r"[^A-Za-z0-9 ,'\-?]", text)
    return text if plain and text[0].isupper() else ""


def html_blocks(data: bytes):
    """(tag, text) of the page's headings and paragraphs, in order."""
    root = lxml.html.document_fromstring(data)
    for element in list(root.iter(*DROPPED)):
        element.drop_tree()
    for element in list(root.iter("*")):
        classes = set(element.get("class", "").split())
        if classes & DROPPED_CLASSES and element.getparent() is not None:
            element.drop_tree()
    for element in root.iter("*"):
        paragraph = element.tag == "div" and element.get("class") == "para"
        if element.tag not in BLOCKS and not paragraph:
            continue
        if element.tag in ("li", "dd") and any(child.tag in BLOCKS for child in element.iterdescendants()):
            continue
        yield element.tag, element.text_content()


def pod_blocks(data: bytes):
    text = data.decode("utf-8", "replace")
    for block in re.split(r"\n\s*\n", text):
        heading = re.match(r"=head\d (.*)", block)
        if block.startswith((" ", "\t")) or block.startswith("=") and not heading:
            continue
        block = heading.group(1) if heading else block
        for _ in range(3):
            block = re.sub(r"[A-Z]<(?:<+ )?([^<>]*?)(?: >+)?>", lambda m: m.group(1).split("|")[0], block)
        yield ("h2" if heading else "p"), block


def read_document(path: pathlib.Path):
    """Lines of one page: "# heading" before the paragraphs of a section that has any."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if not data.strip():
        return []
    lines, heading = [], ""
    for tag, text in pod_blocks(data) if path.suffix == ".pod" else html_blocks(data):
        text = clean(text)
        if tag in HEADINGS:
            heading = clean_heading(text)
        elif text and is_prose(text):
            if heading:
                lines.append("# " + heading)
                heading = ""
            lines.append(text)
    return lines
