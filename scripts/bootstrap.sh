#!/usr/bin/env bash
# Makes sure of what the build needs beyond a Rust toolchain and a C/C++ compiler:
#   1. libclang, which generates the RocksDB bindings;
#   2. RocksDB itself as a static library, built once per machine into a cache outside the tree.
# Then points cargo at that library through .cargo/config.toml (not tracked), so that a plain `cargo build` finds it too.
# Running it again costs a fraction of a second.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${ROVE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rove}
# The RocksDB version and its compression are part of the path: a new one builds beside the old one.
version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
triple=$(rustc -vV | sed -n 's/^host: //p')
lib_dir="$cache/rocksdb-$version-lz4-$triple"

say() { printf 'bootstrap: %s\n' "$*" >&2; }

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so' && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && return 0
    [ -d /Library/Developer/CommandLineTools/usr/lib ] && return 0
    return 1
}

install_libclang() {
    local sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        # Never wait for a password: whoever runs this may not be there.
        command -v sudo >/dev/null && sudo -n true 2>/dev/null && sudo="sudo -n"
        [ -z "$sudo" ] && return 1
    fi
    if command -v apt-get >/dev/null; then
        say "installing libclang-dev with apt-get"
        $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libclang-dev >&2
    elif command -v dnf >/dev/null; then
        say "installing clang-devel with dnf"
        $sudo dnf install -y -q clang-devel >&2
    elif command -v pacman >/dev/null; then
        say "installing clang with pacman"
        $sudo pacman -Sy --noconfirm clang >&2
    elif command -v apk >/dev/null; then
        say "installing clang-dev with apk"
        $sudo apk add --quiet clang-dev >&2
    else
        return 1
    fi
}

if ! have_libclang && ! install_libclang; then
    say "libclang is missing and could not be installed from here. Install it and run this again:"
    say "  Debian, Ubuntu: apt-get install libclang-dev    Fedora: dnf install clang-devel"
    say "  Arch: pacman -S clang    Alpine: apk add clang-dev    macOS: xcode-select --install"
    exit 1
fi

# The objects in cargo's output directory tell how far the build is; RocksDB 11 has about this many.
objects_total=345

build_rocksdb() {
    local build="$cache/build-rocksdb-$version" started pid count
    say "building RocksDB ($version) once for this machine: 20-30 minutes on two cores, then every build links it"
    mkdir -p "$build"
    started=$(date +%s)
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$build" \
        cargo build --release --locked -p librocksdb-sys >"$build/log" 2>&1 &
    pid=$!
    trap 'kill "$pid" 2>/dev/null || true' EXIT
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if [ $(( ($(date +%s) - started) % 30 )) -eq 0 ]; then
            count=$(find "$build/release/build" -path '*librocksdb-sys-*/out/*' -name '*.o' 2>/dev/null | wc -l)
            say "RocksDB: $count of about $objects_total files after $(( $(date +%s) - started )) s"
        fi
    done
    trap - EXIT
    if ! wait "$pid"; then
        tail -n 40 "$build/log" >&2
        say "RocksDB did not build; the whole log is $build/log"
        exit 1
    fi
    mkdir -p "$lib_dir.new"
    find "$build/release/build" -path '*librocksdb-sys-*/out/librocksdb.a' -exec cp {} "$lib_dir.new/" \;
    [ -s "$lib_dir.new/librocksdb.a" ] || { say "no librocksdb.a came out of the build; see $build/log"; exit 1; }
    # A rename, so that a build cut short never looks finished.
    mv "$lib_dir.new" "$lib_dir"
    rm -rf "$build"
    say "RocksDB is ready in $lib_dir after $(( $(date +%s) - started )) s"
}

if [ -n "${ROCKSDB_LIB_DIR:-}" ] && [ "$ROCKSDB_LIB_DIR" != "$lib_dir" ]; then
    say "using the RocksDB of ROCKSDB_LIB_DIR=$ROCKSDB_LIB_DIR"
    lib_dir=$ROCKSDB_LIB_DIR
elif [ ! -s "$lib_dir/librocksdb.a" ]; then
    mkdir -p "$cache"
    # Two builds at once (two clones, an editor) wait for each other instead of doing it twice.
    if command -v flock >/dev/null; then
        exec 9>"$cache/rocksdb.lock"
        flock 9
    fi
    [ -s "$lib_dir/librocksdb.a" ] || build_rocksdb
fi

config=$(printf '# Written by scripts/bootstrap.sh.\n[env]\nROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"\n' "$lib_dir")
mkdir -p .cargo
if [ "$(cat .cargo/config.toml 2>/dev/null)" != "$config" ]; then
    printf '%s\n' "$config" >.cargo/config.toml
fi
