#!/usr/bin/env bash
# Semantic search in a folder of notes with the command line only: no server, no network.
#
#   examples/notes.sh ~/notes "how to prune the apple tree"
#
# prints the three best passages with the names of their notes. The index is a file in ~/.cache/tealight; it is rebuilt when a note has been
# added, changed or removed.
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

# Removing a note updates the modification time of its folder.
if [[ ! -e $index || -n $(find . -newer "$index" -print -quit) ]]; then
    mkdir -p "$cache"
    # The index gets the time at which the build started, so that notes saved during the build are newer.
    touch "$index.started"
    # An embedding represents the main topic of a chunk, so small chunks make details findable.
    tealight index build . --chunk-tokens 64 --output "$index.new" >/dev/null
    touch -r "$index.started" "$index.new"
    mv "$index.new" "$index"
    rm "$index.started"
fi
tealight index search "$index" "$question" -k 3
