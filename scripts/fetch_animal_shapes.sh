#!/usr/bin/env bash
# Fetch animal shapes (MIT licence; 10,000 grey pictures of 28 x 28 pixels, ten animals) from the Python package animal-shape-mnist, which is pinned by its hash in
# requirements/animal-shapes.txt, and convert them once into IDX files.
#
#   scripts/fetch_animal_shapes.sh [FOLDER]
#
# FOLDER is where the two IDX files go; by default ${XDG_CACHE_HOME:-~/.cache}/kfnas/animal-shapes, where kfnas looks for them. PYTHON is the interpreter whose pip
# downloads; by default .venv/bin/python. Does nothing when good files are there already. The package is neither installed nor imported: scripts/convert_animal_shapes.py
# reads its arrays and runs none of its code. Where no package index can be reached it says so and ends well: only `source: animal-shapes` is then missing.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
target=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/kfnas/animal-shapes}

say() { printf 'animal-shapes: %s\n' "$*" >&2; }

give_up() {
    say "$1; source: animal-shapes is missing until this script ends well"
    exit 0
}

unpacked_bytes() { gzip -dc "$1" 2>/dev/null | wc -c; }

good() { [ "$(unpacked_bytes "$1/images-idx3-ubyte.gz")" -eq 7840016 ] && [ "$(unpacked_bytes "$1/labels-idx1-ubyte.gz")" -eq 10008 ]; }

set +o pipefail  # a file that is not there is no bytes
if good "$target"; then
    say "present in $target"
    exit 0
fi

mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$(dirname "$target")/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --requirement "$here/requirements/animal-shapes.txt" --dest "$work" 2>"$work/pip.log" || give_up "pip cannot download the package ($(tail -n 1 "$work/pip.log"))"

"$python" "$here/scripts/convert_animal_shapes.py" "$work"/animal_shape_mnist-*.whl "$work/idx"
good "$work/idx" || give_up "the package holds other arrays than expected"
mkdir -p "$target"
mv -f "$work/idx"/*.gz "$target/"
say "fetched into $target"
