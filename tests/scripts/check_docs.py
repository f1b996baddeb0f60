"""Whether the documentation holds together: check_docs.py, in the repository's root.

Every relative link of every Markdown file leads to a file, and to a heading of it where it names one; every page of
docs/ stands in docs/SUMMARY.md; links of the site that mdbook makes lead to pages of the site. Shell scripts can be read,
and workflows of GitHub are YAML whose jobs have steps and that call scripts of ours which exist.
"""

import importlib.util
import os.path
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

parser = MarkdownIt("gfm-like", {"linkify": False})
problems = []


def tokens(text):
    for token in parser.parse(text):
        yield token
        yield from token.children or []


def links(text):
    """Where links and pictures of a page lead."""
    for token in tokens(text):
        if token.type == "link_open":
            yield token.attrs["href"]
        elif token.type == "image":
            yield token.attrs["src"]
        elif token.type.startswith("html"):
            yield from re.findall(r"\b(?:href|src)=\"([^\"]+)\"", token.content)


def anchors(text):
    """The anchors of a page's headings, as forges and mdbook make them."""
    found = []
    flat = list(parser.parse(text))
    for heading, inline in zip(flat, flat[1:]):
        if heading.type == "heading_open":
            words = "".join(child.content for child in inline.children if child.type in ("text", "code_inline"))
            anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            count = sum(known == anchor or re.fullmatch(re.escape(anchor) + r"-\d+", known) is not None for known in found)
            found.append(f"{anchor}-{count}" if count else anchor)
    return found


def broken(path, text, read, exists):
    """The links of the page at `path` that lead nowhere."""
    for target in links(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file, _, anchor = urllib.parse.unquote(target).partition("#")
        to = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        if not exists(to):
            yield f"{path}: no {to} (link to {target})"
        elif anchor and to.endswith(".md") and anchor not in anchors(read(to)):
            yield f"{path}: {to} has no heading #{anchor}"


# The check can fail.
sample = {"a.md": "# One two\n[x](b.md#three) [y](b.md#four) ![z](c.png) `[q](d.md)`\n\n## `One` two", "b.md": "## Three"}
expected = ["a.md: b.md has no heading #four", "a.md: no c.png (link to c.png)"]
assert list(broken("a.md", sample["a.md"], sample.get, lambda path: path in sample)) == expected
assert anchors(sample["a.md"]) == ["one-two", "one-two-1"]

tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True, text=True).stdout.splitlines()
tracked = [path for path in tracked if os.path.exists(path)]
folders = {str(parent) for path in tracked for parent in Path(path).parents}
pages = [path for path in tracked if path.endswith(".md")]
texts = {path: Path(path).read_text(encoding="utf-8") for path in pages}
for path in pages:
    problems += broken(path, texts[path], texts.get, lambda to: to in tracked or to in folders)

summary = {os.path.normpath(os.path.join("docs", target)) for target in links(texts["docs/SUMMARY.md"])}
problems += [f"docs/SUMMARY.md lacks {path}" for path in pages if path.startswith("docs/") and path not in summary | {"docs/SUMMARY.md"}]

# The site: what book.py makes of each page.
spec = importlib.util.spec_from_file_location("book", "docs/book.py")
book = importlib.util.module_from_spec(spec)
spec.loader.exec_module(book)
relative = {os.path.relpath(path, "docs") for path in summary}
site = {}
for path in relative:
    in_docs = lambda file: not file.startswith("..") and f"docs/{file}" in tracked  # noqa: E731
    place = book.place_of(path)
    if place in site:
        problems.append(f"two pages of the site are {place}")
    site[place] = book.rewritten(texts[os.path.normpath(f"docs/{path}")], path, relative, in_docs)
for place, text in site.items():
    problems += [f"site: {what}" for what in broken(place, text, site.get, lambda to: to in site or f"docs/{to}" in tracked)]
assert site["GUIDE.md"] != texts["GUIDE.md"] and "docs/pairs.md)" not in site["GUIDE.md"], "book.py changed nothing"

scripts = [path for path in tracked if os.path.isfile(path) and Path(path).open("rb").readline().startswith(b"#!/usr/bin/env bash")]
assert "tests/run" in scripts
for path in scripts:
    found = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    problems += [f"{path}: {found.stderr.strip()}"] if found.returncode else []
    if not os.access(path, os.X_OK):
        problems.append(f"{path} is not executable")
shellcheck = Path(sys.executable).parent / "shellcheck"
found = subprocess.run([shellcheck, "--severity=warning", *scripts], capture_output=True, text=True)
problems += [found.stdout + found.stderr] if found.returncode else []

# What container files copy is there; what a stage of theirs made, and what was built before, is not looked for.
for path in (path for path in tracked if os.path.basename(path) == "Containerfile"):
    text = re.sub(r"\\\n", " ", Path(path).read_text(encoding="utf-8"))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, flags=re.MULTILINE))
    for line in re.findall(r"^COPY (.+)", text, flags=re.MULTILINE):
        words = line.split()
        origin = next((word.partition("=")[2] for word in words if word.startswith("--from=")), None)
        sources = [word for word in words if not word.startswith("--")][:-1]
        if origin is not None:
            problems += [f"{path}: COPY from {origin}, which is no stage"] if origin not in stages else []
            continue
        lost = [one for one in sources if not one.startswith("target/") and os.path.normpath(one) not in {".", *tracked, *folders}]
        problems += [f"{path}: COPY of {one}, which is not there" for one in lost]

# What a job of GitHub's runs: shell that can be read, and scripts that are there.
called = set()
for path in (path for path in tracked if path.startswith(".github/workflows/")):
    workflow = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as true.
    if True not in workflow or not workflow.get("jobs"):
        problems.append(f"{path} has no jobs, or nothing that starts them")
    for name, job in workflow["jobs"].items():
        needed = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
        problems += [f"{path}: {name} needs {other}, which is no job" for other in needed if other not in workflow["jobs"]]
        if "runs-on" not in job or not job.get("steps"):
            problems.append(f"{path}: {name} runs nowhere, or has no steps")
        for step in job["steps"]:
            if ("run" in step) == ("uses" in step):
                problems.append(f"{path}: a step of {name} has both run and uses, or neither: {step}")
            shell = step.get("run", "")
            found = subprocess.run(["bash", "-n"], input=re.sub(r"\$\{\{.*?\}\}", "x", shell), capture_output=True, text=True)
            problems += [f"{path}: {found.stderr.strip()}"] if found.returncode else []
            called |= {script for script in scripts if re.search(rf"(?<![\w./-]){re.escape(script)}(?![\w./-])", shell)}
if "tests/run" not in called:
    problems.append(f".github/workflows calls {sorted(called)}, not tests/run")

for problem in problems:
    print(f"FAIL {problem}")
print(f"{len(pages)} pages, {len(site)} of them in the site, {len(scripts)} scripts, {len(problems)} problems")
sys.exit(bool(problems))
