#!/usr/bin/env bash
# Makes sure of what the build needs beyond a Rust toolchain and a C/C++ compiler:
#   1. libclang, which generates the RocksDB bindings;
#   2. RocksDB itself as a static library, built once per machine into a cache outside the tree.
# Then points cargo at that library through .cargo/config.toml (not tracked), so that a plain `cargo build` finds it too.
# Running it again costs a fraction of a second.
#
# ROVE_CACHE_DIR  where the library is kept (default: ${XDG_CACHE_HOME:-~/.cache}/rove)
# ROCKSDB_LIB_DIR a directory with a librocksdb.a of one's own, used instead
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'bootstrap: %s\n' "$*" >&2; }
fail() {
    local line
    for line in "$@"; do say "$line"; done
    exit 1
}

# --- a toolchain ------------------------------------------------------------------------------------------------------

if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    fail "cargo is missing. Install Rust (1.89 or newer) from https://rustup.rs, open a new shell and run this again."
fi

have_one_of() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null && return 0
    done
    return 1
}
# CC and CXX may hold a launcher and options besides the compiler: the first word is what must be there.
if ! have_one_of ${CC:+"${CC%% *}"} cc gcc clang || ! have_one_of ${CXX:+"${CXX%% *}"} c++ g++ clang++; then
    fail "a C or C++ compiler is missing. Install one and run this again:" \
        "  Debian, Ubuntu: apt-get install g++    Fedora: dnf install gcc-c++    Arch: pacman -S gcc" \
        "  Alpine: apk add g++    macOS: xcode-select --install"
fi

# --- libclang ---------------------------------------------------------------------------------------------------------

any_file() { compgen -G "$1" >/dev/null; }

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    [ -d /Library/Developer/CommandLineTools/usr/lib ] && return 0
    any_file '/usr/lib/llvm-*/lib/libclang*.so*' || any_file '/usr/lib/*/libclang*.so*' ||
        any_file '/usr/lib64/libclang*.so*' || any_file '/usr/lib/libclang*.so*' ||
        ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so'
}

# The library alone (it comes with graphics drivers, for one) does not have the headers the bindings are made with.
have_clang_headers() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    [ -d /Library/Developer/CommandLineTools/usr/lib ] && return 0
    any_file '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' || any_file '/usr/lib*/clang/*/include/stddef.h' ||
        any_file '/usr/lib*/llvm*/lib/clang/*/include/stddef.h'
}

install_libclang() {
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        # Never wait for a password: whoever runs this may not be there.
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
        sudo=(sudo -n)
    fi
    if command -v apt-get >/dev/null; then
        say "installing libclang-dev with apt-get"
        # An update that fails (a mirror is down, there is no network) does not matter if the lists are there.
        "${sudo[@]}" apt-get update -qq </dev/null >&2 || true
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libclang-dev </dev/null >&2
    elif command -v dnf >/dev/null; then
        say "installing clang-devel with dnf"
        "${sudo[@]}" dnf install -y -q clang-devel </dev/null >&2
    elif command -v pacman >/dev/null; then
        say "installing clang with pacman"
        "${sudo[@]}" pacman -Sy --noconfirm clang </dev/null >&2
    elif command -v apk >/dev/null; then
        say "installing clang-dev with apk"
        "${sudo[@]}" apk add --quiet clang-dev </dev/null >&2
    else
        return 1
    fi
}

if ! { have_libclang && have_clang_headers; } && ! install_libclang; then
    if have_libclang; then
        say "libclang is here but its headers are not where they usually are; if generating bindings fails, install:"
    else
        say "libclang is missing and could not be installed from here. Install it and run this again:"
    fi
    say "  Debian, Ubuntu: apt-get install libclang-dev    Fedora: dnf install clang-devel"
    say "  Arch: pacman -S clang    Alpine: apk add clang-dev    macOS: xcode-select --install"
    have_libclang || exit 1
fi

# --- RocksDB ----------------------------------------------------------------------------------------------------------

cache=${ROVE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rove}
# Cargo reads the path from a file of ours, from whichever directory it stands in.
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
# The RocksDB version and its compression are part of the path: a new one builds beside the old one.
version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
triple=$(rustc -vV | sed -n 's/^host: //p')
[ -n "$version" ] || fail "Cargo.lock does not name librocksdb-sys; is it whole? (git checkout Cargo.lock)"
lib_dir="$cache/rocksdb-$version-lz4-$triple"

config=.cargo/config.toml
marker='# Written by scripts/bootstrap.sh.'
config_is_ours() { [ ! -e "$config" ] || [ "$(head -n 1 "$config")" = "$marker" ]; }

# The objects in cargo's output directory tell how far the build is; RocksDB 11 has about this many.
objects_total=345

build_rocksdb() {
    local build="$cache/build-rocksdb-$version" started now next pid count left
    say "building RocksDB ($version) once for this machine: 20-30 minutes on two cores, then every build links it"
    mkdir -p "$build"
    # An older one of ours would have cargo link the library it names instead of building one.
    config_is_ours && rm -f "$config"
    started=$(date +%s)
    next=$((started + 30))
    # In a process group of its own, so that an interrupt ends the compilers too and not only cargo.
    # No debug information: it makes the library ten times as large and every link slower.
    set -m
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u CARGO_BUILD_TARGET CARGO_TARGET_DIR="$build" \
        CARGO_PROFILE_RELEASE_DEBUG=false \
        cargo build --release --locked -p librocksdb-sys </dev/null >"$build/log" 2>&1 &
    pid=$!
    set +m
    trap 'kill -- "-$pid" 2>/dev/null || true' EXIT
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        now=$(date +%s)
        if [ "$now" -ge "$next" ]; then
            next=$((now + 30))
            count=$(find "$build/release/build" -path '*librocksdb-sys-*/out/*' -name '*.o' 2>/dev/null | wc -l)
            left=""
            # The first files say little about the rest.
            if [ "$count" -ge 20 ] && [ "$count" -lt "$objects_total" ]; then
                left=", about $(((objects_total - count) * (now - started) / count / 60 + 1)) min to go"
            fi
            say "RocksDB: $((count)) of about $objects_total files after $(((now - started) / 60)) min$left"
        fi
    done
    trap - EXIT
    if ! wait "$pid"; then
        tail -n 40 "$build/log" >&2
        if grep -qiE 'download|resolve host|network|unable to update|offline' "$build/log"; then
            say "cargo could not fetch the crates. With a network: cargo fetch --locked. Without one, copy a filled ~/.cargo/registry."
        fi
        fail "RocksDB did not build; the whole log is $build/log"
    fi
    rm -rf "$lib_dir.new"
    mkdir -p "$lib_dir.new"
    find "$build/release/build" -path '*librocksdb-sys-*/out/librocksdb.a' -exec cp {} "$lib_dir.new/" \;
    [ -s "$lib_dir.new/librocksdb.a" ] || fail "no librocksdb.a came out of the build; see $build/log"
    # A rename, so that a build cut short never looks finished.
    rm -rf "$lib_dir"
    mv "$lib_dir.new" "$lib_dir"
    rm -rf "$build"
    say "RocksDB is ready in $lib_dir after $((($(date +%s) - started) / 60)) min"
}

# Two builds at once (two clones, an editor) wait for each other instead of doing it twice.
lock_cache() {
    local lock="$cache/rocksdb.lock.d" owner told=""
    if command -v flock >/dev/null; then
        # Inherited by the compilers: if this script is killed, the next one waits for them and finds their work.
        exec 9>"$cache/rocksdb.lock"
        flock -n 9 || { say "RocksDB is being built by another process; waiting for it"; flock 9; }
        return
    fi
    # A directory is made by one process only; the number in it tells whether that one still lives.
    while ! mkdir "$lock" 2>/dev/null; do
        owner=$(cat "$lock/pid" 2>/dev/null || true)
        if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
            rm -rf "$lock"
            continue
        fi
        [ -n "$told" ] || say "RocksDB is being built by another process; waiting for it ($lock)"
        told=yes
        sleep 2
    done
    printf '%s\n' "$$" >"$lock/pid"
}
unlock_cache() { rm -rf "$cache/rocksdb.lock.d"; }

own_library=no
if [ -n "${ROCKSDB_LIB_DIR:-}" ] && [ "$ROCKSDB_LIB_DIR" != "$lib_dir" ]; then
    own_library=yes
    say "using the RocksDB of ROCKSDB_LIB_DIR=$ROCKSDB_LIB_DIR"
    lib_dir=$ROCKSDB_LIB_DIR
fi

# A TOML string: backslash and quote are the only characters of a path that need care.
quoted=${lib_dir//\\/\\\\}
quoted=${quoted//\"/\\\"}
lines=$(printf '[env]\nROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"' "$quoted")
if ! config_is_ours && ! grep -qF "ROCKSDB_LIB_DIR = \"$quoted\"" "$config"; then
    say "$config is your own and is left alone; for RocksDB it needs these lines:"
    printf '%s\n' "$lines" >&2
    exit 1
fi

if [ ! -s "$lib_dir/librocksdb.a" ]; then
    [ "$own_library" = no ] || fail "there is no librocksdb.a in ROCKSDB_LIB_DIR=$lib_dir"
    mkdir -p "$cache"
    lock_cache
    [ -s "$lib_dir/librocksdb.a" ] || build_rocksdb
    unlock_cache
fi

if config_is_ours; then
    wanted=$(printf '%s\n%s' "$marker" "$lines")
    mkdir -p .cargo
    if [ "$(cat "$config" 2>/dev/null)" != "$wanted" ]; then
        printf '%s\n' "$wanted" >"$config.new"
        mv "$config.new" "$config"
    fi
fi
