#!/usr/bin/env bash
# Builds the Debian package of crossfixd and looks into it.
#
#   onboard/packaging/build-deb.sh                     with the profile `dist`, for vehicles
#   onboard/packaging/build-deb.sh release [FOLDER]    with what the tests have built already; into target/debian
#
# Needs cargo-deb: cargo install cargo-deb --version 3.8.0 --locked
#
# As root in a container, where no systemd runs and no crossfixd is installed, it also installs, removes and purges it.
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=${1:-dist}
out=${2:-target/debian}

# With ROS 2. Features of the whole workspace, so that what the tests built is used.
shipped=(--workspace --locked --features crossfix-onboard/ros2)
cargo build --profile "$profile" "${shipped[@]}" --bin crossfixd
# Manual pages are the same whatever the program is built with.
examples=(env -u CARGO_TARGET_DIR -u RUSTFLAGS)
if [ "$profile" = dist ]; then examples+=(-u SOURCE_DATE_EPOCH); fi
"${examples[@]}" cargo build --release "${shipped[@]}" -q --example manual
target/release/examples/manual target/manual
gzip -9nf target/manual/*.1
mkdir -p "$out"
rm -f "$out"/crossfixd_*.deb
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)} \
  cargo deb -p crossfix-onboard --no-build --profile "$profile" --output "$out/" >/dev/null
package=$(ls "$out"/crossfixd_*.deb)

contents=$(dpkg-deb --contents "$package")
for path in ./usr/bin/crossfixd ./etc/crossfix/crossfixd.toml ./usr/share/man/man1/crossfixd.1.gz \
  ./usr/share/man/man1/crossfixd-run.1.gz ./usr/share/bash-completion/completions/crossfixd \
  ./usr/share/zsh/vendor-completions/_crossfixd ./usr/share/fish/vendor_completions.d/crossfixd.fish \
  ./lib/systemd/system/crossfixd.service ./usr/share/doc/crossfixd/crossfixd.example.toml; do
  grep -q " $path\$" <<<"$contents" || grep -q " ${path/.\/lib/./usr/lib}\$" <<<"$contents" ||
    { echo "$package lacks $path" >&2; exit 1; }
done
dpkg-deb --info "$package" conffiles | grep -qx /etc/crossfix/crossfixd.toml

# Unpacked, and run from there: the config that the package brings has no problems.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
dpkg-deb --extract "$package" "$root"
"$root/usr/bin/crossfixd" --check "$root/etc/crossfix/crossfixd.toml"
"$root/usr/bin/crossfixd" --version
unit=$(find "$root" -name crossfixd.service)
if command -v systemd-analyze >/dev/null; then
  # The program is not where the unit will find it.
  sed "s|/usr/bin/crossfixd|$root/usr/bin/crossfixd|" "$unit" >"$root/crossfixd.service"
  systemd-analyze verify --man=no "$root/crossfixd.service"
  systemd-analyze security --offline=yes --threshold=30 --no-pager "$root/crossfixd.service" | tail -n 1
else
  echo "systemd-analyze is not installed: the unit was not checked" >&2
fi

if [ "$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && ! dpkg-query -s crossfixd >/dev/null 2>&1; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -qq --no-install-recommends "$(realpath "$package")" >/dev/null
  /usr/bin/crossfixd --check
  apt-get remove -y -qq crossfixd >/dev/null
  [ ! -e /usr/bin/crossfixd ] && [ -e /etc/crossfix/crossfixd.toml ] || { echo "remove: a program is left, or its config is not" >&2; exit 1; }
  apt-get purge -y -qq crossfixd >/dev/null
  [ ! -e /etc/crossfix ] || { echo "purge: /etc/crossfix is left" >&2; exit 1; }
  echo "installed, checked, removed and purged"
else
  echo "not installed here: that takes root, no systemd, and no crossfixd that is installed already"
fi
echo "$package"
