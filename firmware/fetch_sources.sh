#!/bin/sh
# Put the FreeRTOS kernel V11.2.0 into a folder, once.
#
#   fetch_sources.sh DESTINATION
#
# Prints the kernel's folder. The kernel comes from the crate freertos-next, which bundles the official sources; no Rust
# is compiled. Pinned by version and by the package's SHA-256, which cargo checks while it downloads and we check here.
# Safe to run several at once: the folder appears whole, by a rename.
set -eu

name=freertos-next
version=0.12.0
package_sha256=b7824fb42660c16e1b3b573eef99c2fe5c5cba6294a631c309084635f6bfcbb0
cargo_minor_min=85

destination=${1:?usage: fetch_sources.sh DESTINATION}
kernel="$destination/$name-$version/FreeRTOS-Kernel"
if [ -f "$kernel/tasks.c" ]; then
    echo "$kernel"
    exit 0
fi

# The first cargo that is new enough: a distribution's own may be older than the one a user installed beside it.
find_cargo() {
    for candidate in "${CARGO:-}" cargo "${HOME:-}/.cargo/bin/cargo" /usr/bin/cargo; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        minor=$("$candidate" --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
        if [ "${minor:-0}" -ge "$cargo_minor_min" ]; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

if ! cargo=$(find_cargo); then
    echo "fetch_sources: needs cargo 1.$cargo_minor_min or newer to fetch the FreeRTOS kernel." >&2
    echo "  Debian 12: apt-get install cargo-web    newer: apt-get install cargo" >&2
    echo "  or set FREERTOS_KERNEL_PATH to a checkout of FreeRTOS-Kernel V11.2.0" >&2
    exit 1
fi

mkdir -p "$destination"
work=$(mktemp -d "$destination/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
mkdir "$work/src"
: >"$work/src/lib.rs"
cat >"$work/Cargo.toml" <<MANIFEST
[package]
name = "kernel-sources"
version = "0.0.0"
edition = "2021"
[dependencies]
$name = "=$version"
[workspace]
MANIFEST

(cd "$work" && "$cargo" vendor --quiet vendor >/dev/null)

found=$(sed -n 's/.*"package":"\([0-9a-f]*\)".*/\1/p' "$work/vendor/$name/.cargo-checksum.json")
if [ "$found" != "$package_sha256" ]; then
    echo "fetch_sources: $name $version has the package hash '$found', expected $package_sha256" >&2
    exit 1
fi

# Somebody else may have finished first: then theirs is as good as ours.
mv -T "$work/vendor/$name" "$destination/$name-$version" 2>/dev/null || [ -f "$kernel/tasks.c" ]
echo "$kernel"
