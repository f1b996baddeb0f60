"""Whether every crate we build with may be: check_licences.py, in the repository's root.

Holds `cargo metadata` to deny.toml, which `cargo deny check` reads too: licences (`[licenses] allow`),
crates that must not come in (`[bans] deny`), and that everything comes from crates.io.
"""
import json
import re
import subprocess
import sys
import tomllib

with open("deny.toml", "rb") as file:
    rules = tomllib.load(file)
allowed = set(rules["licenses"]["allow"])
banned = {entry["crate"]: entry["reason"] for entry in rules["bans"]["deny"]}
command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
packages = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["packages"]


def may_use(expression):
    """Whether an SPDX expression can be met with allowed licences; the old "A/B" means A OR B."""
    tokens = re.findall(r"\(|\)|[^\s()/]+|/", expression)
    words, position = [], 0
    while position < len(tokens):
        token = tokens[position]
        if token == "/":
            words.append("or")
        elif token in ("AND", "OR"):
            words.append(token.lower())
        elif token in "()":
            words.append(token)
        else:
            name = token
            if tokens[position + 1 : position + 2] == ["WITH"]:
                name = " ".join(tokens[position : position + 3])
                position += 2
            words.append(str(name in allowed))
        position += 1
    if not words or any(not re.fullmatch(r"\(|\)|and|or|True|False", word) for word in words):
        return False
    return eval(" ".join(words))  # Only the words above.


assert may_use("MIT OR Nothing-1.0") and may_use("MIT/Nothing-1.0") and may_use("(MIT AND ISC) OR No")
assert may_use("Apache-2.0 WITH LLVM-exception") and not may_use("MIT AND Nothing-1.0") and not may_use("")

problems = []
for package in packages:
    name = f"{package['name']} {package['version']}"
    if package["name"] in banned:
        problems.append(f"{name} is banned: {banned[package['name']]}")
    if package["source"] is None:
        continue  # Ours.
    if not package["source"].endswith("/crates.io-index"):
        problems.append(f"{name} comes from {package['source']}, not from crates.io")
    if not may_use(package["license"] or ""):
        problems.append(f"{name} stands under {package['license'] or 'no stated licence'}, which deny.toml does not allow")
for problem in problems:
    print(f"FAIL {problem}")
print(f"{len(packages)} crates, {len(problems)} problems")
sys.exit(bool(problems))
