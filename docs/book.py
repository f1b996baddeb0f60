"""A preprocessor of mdbook: gives pages from outside docs/ a place in the site, and their links with them.

mdbook calls it with the book as JSON on standard input (`supports RENDERER` first, which any renderer answers with yes). A
link to a file that is a page of the site becomes a link to that page, one to another file of docs/ stays, and
what is not part of the site stays as text.
"""

import json
import os.path
import re
import sys

# Inline links and images, with a title or without: what stands in brackets, and where it leads. Code is passed over.
LINK = re.compile(r"(```.*?```|``.*?``|`[^`\n]*`)|(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)((?:\s+\"[^\"]*\")?)\)", re.DOTALL)


def chapters(items):
    """All chapters below `items`."""
    for item in items:
        if isinstance(item, dict) and "Chapter" in item:
            yield item["Chapter"]
            yield from chapters(item["Chapter"]["sub_items"])


def place_of(path):
    """Where in the site a page of the repository stands; paths are relative to docs/."""
    inside = os.path.normpath(path)
    while inside.startswith("../"):
        inside = inside[3:]
    return inside


def rewritten(content, path, pages, in_docs):
    """The text of the page at `path` with links that lead somewhere in the site."""

    def link(match):
        code, picture, text, target, title = match.groups()
        if code or re.match(r"[a-z][a-z0-9+.-]*:|#", target):
            return match[0]
        file, hash_sign, anchor = target.partition("#")
        file = os.path.normpath(os.path.join(os.path.dirname(path), file))
        here = os.path.dirname(place_of(path)) or "."
        if file in pages or in_docs(file):
            return f"{picture}[{text}]({os.path.relpath(place_of(file), here)}{hash_sign}{anchor}{title})"
        return text

    return LINK.sub(link, content)


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    context, book = json.load(sys.stdin)
    folder = os.path.join(context["root"], context["config"]["book"]["src"])
    every = [chapter for chapter in chapters(book["items"]) if chapter["path"]]
    pages = {os.path.normpath(chapter["path"]) for chapter in every}

    def in_docs(file):
        return not file.startswith("..") and os.path.isfile(os.path.join(folder, file))

    for chapter in every:
        path = chapter["path"]
        chapter["content"] = rewritten(chapter["content"], path, pages, in_docs)
        chapter["path"] = place_of(path)
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
