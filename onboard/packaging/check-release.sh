#!/usr/bin/env bash
# Looks into what onboard/packaging/release.sh wrote: sums, contents, and the programs run from where they were unpacked.
#
#   onboard/packaging/check-release.sh [FOLDER [PROFILE]]      target/packages, and dist, when left out
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-target/packages}
profile=${2:-dist}
# What a vehicle's program may weigh, with ROS 2.
largest_crossfixd=28000000

wrong() { echo "check-release: $*" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
(cd "$folder" && sha256sum --check --quiet --strict SHA256SUMS)
for program in crossfix crossfixd; do
  archives=("$folder/$program"-[0-9]*.tar.gz)
  packages=("$folder/${program}"_*.deb)
  [ ${#archives[@]} = 1 ] && [ -f "${archives[0]}" ] || wrong "$folder does not have one archive of $program"
  [ ${#packages[@]} = 1 ] && [ -f "${packages[0]}" ] || wrong "$folder does not have one Debian package of $program"
  for file in "${archives[0]}" "${packages[0]}"; do
    grep -q "  $(basename "$file")\$" "$folder/SHA256SUMS" || wrong "SHA256SUMS lacks $(basename "$file")"
  done
  tar -xzf "${archives[0]}" -C "$root"
  unpacked=$root/$(basename "${archives[0]}" .tar.gz)
  expected=("$program" README.md GUIDE.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE LICENSES-THIRD-PARTY.txt docs/pairs.md
    "man/$program.1" "completions/$program.bash" "completions/_$program" "completions/$program.fish")
  if [ "$program" = crossfixd ]; then expected+=(crossfixd.service crossfixd.toml crossfixd.example.toml)
  else expected+=(workflow/Snakefile docs/pairs.schema.json man/crossfix-check.1); fi
  for path in "${expected[@]}"; do
    [ -s "$unpacked/$path" ] || wrong "${archives[0]} lacks $path"
  done
  outside=$(tar -tzf "${archives[0]}" | grep -v "^$(basename "$unpacked")/" || true)
  [ -z "$outside" ] || wrong "${archives[0]} has files outside its folder: $outside"
  grep -q '^## serde ' "$unpacked/LICENSES-THIRD-PARTY.txt" || wrong "LICENSES-THIRD-PARTY.txt of $program does not name serde"
  bash -n "$unpacked/completions/$program.bash"
  version=$("$unpacked/$program" --version)
  [ "$version" = "$program $(basename "$unpacked" | cut -d- -f2)" ] || wrong "$program --version says \"$version\""
  dpkg-deb --extract "${packages[0]}" "$root/$program.deb"
  [ "$("$root/$program.deb/usr/bin/$program" --version)" = "$version" ] || wrong "${packages[0]} has another version"
  [ -s "$root/$program.deb/usr/share/doc/$program/copyright" ] || wrong "${packages[0]} lacks its copyright"
  echo "$program: $(stat -c %s "$unpacked/$program") bytes, archive $(stat -c %s "${archives[0]}"), package $(stat -c %s "${packages[0]}")"
done

daemon=$(echo "$root"/crossfixd-[0-9]*)
"$daemon/crossfixd" --check "$daemon/crossfixd.toml"
bytes=$(stat -c %s "$daemon/crossfixd")
# The profile `release`, which is for tests, is larger.
[ "$profile" != dist ] || [ "$bytes" -le "$largest_crossfixd" ] || wrong "crossfixd has $bytes bytes; at most $largest_crossfixd"

adapter=$(echo "$root"/crossfix-[0-9]*)
"$adapter/crossfix" simulate --kind pairs --pairs 4 --districts 1 --out "$root/pairs" >/dev/null
"$adapter/crossfix" check "$root/pairs" >/dev/null
"$adapter/crossfix" recipes >/dev/null
echo "unpacked, checked and run"
