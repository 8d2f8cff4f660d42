#!/usr/bin/env bash
# Fetch Fashion-MNIST from Debian's package `dataset-fashion-mnist`, without root: download it, unpack it, check it.
#
#   scripts/fetch_fashion_mnist.sh [FOLDER]
#
# FOLDER is where the four IDX files go; by default ${XDG_CACHE_HOME:-~/.cache}/kfnas/fashion-mnist, where kfnas looks for them.
# Does nothing when good files are there already, or when the package is installed (/usr/share/datasets/fashion-mnist). Where Debian's packages cannot be had it
# says so and ends well: kfnas then downloads the data set with torchvision at its first use.
set -euo pipefail

package=dataset-fashion-mnist
installed=/usr/share/datasets/fashion-mnist
target=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/kfnas/fashion-mnist}

say() { printf 'fashion-mnist: %s\n' "$*" >&2; }

give_up() {
    say "$1; kfnas will download it with torchvision at its first use"
    exit 0
}

# name, first four bytes, bytes when unpacked
good() {
    local folder=$1 name magic size
    while read -r name magic size; do
        [ -f "$folder/$name.gz" ] || return 1
        [ "$(gzip -dc "$folder/$name.gz" 2>/dev/null | od -An -tx1 -N4 | tr -d ' \n')" = "$magic" ] || return 1
        [ "$(gzip -dc "$folder/$name.gz" 2>/dev/null | wc -c)" -eq "$size" ] || return 1
    done <<'FILES'
train-images-idx3-ubyte 00000803 47040016
train-labels-idx1-ubyte 00000801 60008
t10k-images-idx3-ubyte 00000803 7840016
t10k-labels-idx1-ubyte 00000801 10008
FILES
}

download() { (cd "$work" && apt-get -qq download "$package" 2>"$work/apt.log"); }

set +o pipefail  # od stops reading early, and gzip then ends by SIGPIPE
for folder in "$installed" "$target"; do
    if good "$folder"; then
        say "present in $folder"
        exit 0
    fi
done

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || give_up "this machine has no apt-get"

mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$(dirname "$target")/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

if ! download; then
    if [ "$(id -u)" -eq 0 ]; then
        say "refreshing apt's package lists"
        apt-get -qq update 2>>"$work/apt.log" || true
    fi
    download || give_up "apt-get cannot download $package ($(tail -n 1 "$work/apt.log"))"
fi

dpkg-deb -x "$work/$package"_*.deb "$work/unpacked"
good "$work/unpacked$installed" || give_up "$package holds other files than expected"
mkdir -p "$target"
mv -f "$work/unpacked$installed"/*-ubyte.gz "$target/"
say "fetched into $target"
