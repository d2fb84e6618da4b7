#!/usr/bin/env bash
# Search in a folder of notes, .md and .txt, by what they mean: nothing but the command line, no server, no network.
#
#   apt-get install jq
#   examples/notes.sh ~/notes "how to prune the apple tree"
#
# prints the three best passages, each with the note that it is from. The index is one file in ~/.cache/tealight, and is made again when a
# note was written, added or taken away since.
set -euo pipefail

if (($# < 2)); then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
fi
# find goes on without jq, and would leave an index of nothing.
for program in jq tealight; do
    command -v "$program" >/dev/null || { echo "$program is not installed" >&2; exit 1; }
done
folder=$(cd "$1" && pwd)
question=${*:2}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tealight
index=$cache/notes-$(cksum <<<"$folder" | cut -d' ' -f1).tlx

# A folder is newer than the index when a note was taken away from it.
if [[ ! -e $index ]] || [[ -n $(find "$folder" \( -name '*.md' -o -name '*.txt' -o -type d \) -newer "$index" -print -quit) ]]; then
    mkdir -p "$cache"
    # As old as what is read here, so that a note which is saved meanwhile is newer.
    touch "$index.began"
    # A document of each paragraph, for a long note would be found by its beginning alone.
    find "$folder" -type f \( -name '*.md' -o -name '*.txt' \) -exec jq --raw-input --slurp --compact-output '
        input_filename as $note | [splits("\n\\s*\n")] | to_entries[] | select(.value | test("\\S"))
        | {id: "\($note)#\(.key)", text: .value, metadata: {$note}}' {} \; |
        tealight index build - --output "$index.new" >/dev/null
    touch -r "$index.began" "$index.new"
    mv "$index.new" "$index"
    rm "$index.began"
fi
tealight index search "$index" "$question" -k 3 --format json |
    jq --raw-output --arg folder "$folder/" '"\(.metadata.note | ltrimstr($folder)): \(.text | gsub("\\s+"; " ") | .[:200])"'
