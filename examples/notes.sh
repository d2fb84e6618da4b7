#!/usr/bin/env bash
# Search in a folder of notes by what they mean: nothing but the command line, no server, no network.
#
#   examples/notes.sh ~/notes "how to prune the apple tree"
#
# prints the three best passages, each with the note that it is from. The index is one file in ~/.cache/tealight, and is made again when a
# note was written, added or taken away since.
set -euo pipefail

if (($# < 2)); then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
command -v tealight >/dev/null || { echo "tealight is not installed" >&2; exit 1; }
cd "$1"
question=${*:2}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tealight
index=$cache/notes-$(cksum <<<"$PWD" | cut -d' ' -f1).tlx

# A folder is newer than the index when a note was taken away from it.
if [[ ! -e $index || -n $(find . -newer "$index" -print -quit) ]]; then
    mkdir -p "$cache"
    # As old as what is read here, so that a note which is saved meanwhile is newer.
    touch "$index.began"
    # A long passage is found by what most of it says.
    tealight index build . --chunk-tokens 64 --output "$index.new" >/dev/null
    touch -r "$index.began" "$index.new"
    mv "$index.new" "$index"
    rm "$index.began"
fi
tealight index search "$index" "$question" -k 3
