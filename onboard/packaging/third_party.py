"""The licences of everything that a program of ours is linked from, as text: third_party.py PACKAGE [OPTION OF CARGO]...

Names, versions and licence expressions of the crates below PACKAGE that are linked into it, and the licence texts that
they bring. Texts that are the same stand once.
"""

import json
import subprocess
import sys
from pathlib import Path

package, *features = sys.argv[1:]
tree = ["cargo", "tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--no-dedupe", "--format", "{p}", "--package", package, *features]
linked = {tuple(line.split()[:2]) for line in subprocess.run(tree, check=True, capture_output=True, text=True).stdout.splitlines() if line.strip()}
metadata = ["cargo", "metadata", "--format-version", "1", "--locked", "--offline"]
packages = json.loads(subprocess.run(metadata, check=True, capture_output=True).stdout)["packages"]
crates = [p for p in packages if p["source"] and (p["name"], f"v{p['version']}") in linked]
assert len(crates) > 20, "cargo tree and cargo metadata do not agree"

texts = {}
print("Crates that this program is linked from, beside ours. Their licence texts follow; those that are the same stand once.\n")
for crate in sorted(crates, key=lambda crate: (crate["name"], crate["version"])):
    print(f"## {crate['name']} {crate['version']}: {crate['license']}")
    if crate["authors"]:
        print(f"   {', '.join(crate['authors'])}")
    folder = Path(crate["manifest_path"]).parent
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")):
            text = "\n".join(line.rstrip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()).strip()
            texts.setdefault(text, []).append(f"{crate['name']} {crate['version']} ({file.name})")
for text, owners in sorted(texts.items(), key=lambda item: item[1]):
    print(f"\n{'-' * 100}\n{', '.join(owners)}\n\n{text}")
