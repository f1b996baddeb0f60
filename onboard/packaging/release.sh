#!/usr/bin/env bash
# Builds what a release consists of, for the machine's own target, and looks into it:
#
#   crossfix-VERSION-TARGET.tar.gz, crossfixd-VERSION-TARGET.tar.gz   programs with licences, guide, manual pages, completions
#   crossfix_VERSION_ARCH.deb, crossfixd_VERSION_ARCH.deb             the same as Debian packages
#   SHA256SUMS
#
#   onboard/packaging/release.sh              with the profile `dist`, into target/packages
#   onboard/packaging/release.sh release      with what the tests have built already
#
# The same commit, compiler and system give the same bytes: names are sorted, times are SOURCE_DATE_EPOCH's
# (without it, the commit's), owners are 0, and the profile `dist` is built without the paths of this machine.
#
# Needs git, Python 3, and cargo-deb: cargo install cargo-deb --version 3.8.0 --locked
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
profile=${1:-dist}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
target=$(rustc -vV | sed -n 's/^host: //p')
version=$(cargo pkgid --offline -p crossfix-offline | sed 's/.*[#@]//')
out=$root/target/packages
stage=$root/target/packages.stage

# Manual pages are the same whatever the program is built with.
examples=(env -u CARGO_TARGET_DIR -u RUSTFLAGS)
if [ "$profile" = dist ]; then
  examples+=(-u SOURCE_DATE_EPOCH)
  # Other flags would build everything in target/ anew, so it has a folder of its own. Set before build-deb.sh, which finds it built.
  export CARGO_TARGET_DIR=$root/target/dist-build SOURCE_DATE_EPOCH=$epoch
  sysroot=$(rustc --print sysroot)
  export RUSTFLAGS="--remap-path-prefix=$root=/crossfix --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$sysroot=/rust"
fi
built=${CARGO_TARGET_DIR:-$root/target}/$profile

# With ROS 2. Of the whole workspace, as the tests build it: features are the same, so what is there is used.
shipped=(--workspace --locked --features crossfix-onboard/ros2)
cargo build --profile "$profile" "${shipped[@]}" --bins
onboard/packaging/build-deb.sh "$profile" "$out"
# build-deb.sh wrote the daemon's manual pages; these are the adapter's.
manual=$root/target/manual
rm -rf "$manual/crossfix"
"${examples[@]}" cargo build --release "${shipped[@]}" -q --example offline_manual
# Not before: C in dependencies, and all that needs it, is compiled anew where this changes.
export SOURCE_DATE_EPOCH=$epoch
target/release/examples/offline_manual "$manual/crossfix"
gzip -9nf "$manual"/crossfix/*.1
rm -f "$out"/crossfix_*.deb "$out"/*.tar.gz "$out/SHA256SUMS"
cargo deb -p crossfix-offline --no-build --profile "$profile" --output "$out/" >/dev/null

# archive PROGRAM PACKAGE MANUAL-FOLDER: what stands in the stage goes into one archive.
archive() {
  local name=$1-$version-$target folder=$stage/$1-$version-$target
  install -D -m 755 "$built/$1" "$folder/$1"
  # Symbols of the profile `release` stay in the build's folder.
  if [ "$profile" != dist ]; then strip "$folder/$1"; fi
  install -m 644 README.md GUIDE.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$folder/"
  python3 onboard/packaging/third_party.py "$2" --features crossfix-onboard/ros2 >"$folder/LICENSES-THIRD-PARTY.txt"
  mkdir -p "$folder/docs"
  git archive HEAD:docs | tar -x -C "$folder/docs"
  install -D -m 644 -t "$folder/man" "$3"/*.1.gz
  gunzip "$folder"/man/*.gz
  install -D -m 644 -t "$folder/completions" "$3/$1.bash" "$3/_$1" "$3/$1.fish"
  if [ "$1" = crossfixd ]; then
    install -m 644 onboard/packaging/crossfixd.toml onboard/crossfixd.example.toml onboard/packaging/crossfixd.service "$folder/"
  else
    mkdir -p "$folder/workflow"
    git archive "HEAD:offline/workflow" | tar -x -C "$folder/workflow"
  fi
  tar --sort=name --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode='u+rw,go=rX,a-s' \
    -C "$stage" -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
}
rm -rf "$stage"
archive crossfix crossfix-offline "$manual/crossfix"
archive crossfixd crossfix-onboard "$manual"
rm -rf "$stage"
(cd "$out" && LC_ALL=C sha256sum -- *.deb *.tar.gz >SHA256SUMS)
onboard/packaging/check-release.sh "$out" "$profile"
