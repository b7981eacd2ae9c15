#!/bin/bash
# Kills a running verb with SIGKILL at random moments and looks at what is left.
#
#   tests/robustness/kill_moments.sh BIN_DIR PROJECT [ROUNDS]
#
# For each of calibrate, run (round to nearest), train (quantization-aware), recipe edits and export: starts the verb
# on a copy of PROJECT, kills it after a random share of the time that it takes undisturbed, then opens the project
# again and counts: does it open, are all recipe edits and runs that were committed still there, is the exported file
# the old one or a whole new one. Prints one line per round and a summary; exit code 1 when anything was lost.
set -u
bin=$(realpath "$1")
source_project=$(realpath "$2")
rounds=${3:-20}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive
cli="$bin/quanvas-cli"

copy() { rm -rf "$work/p"; mkdir "$work/p"; cp -r "$(dirname "$source_project")/." "$work/p/"; project="$work/p/$(basename "$source_project")"; }
runs() { "$cli" runs "$project" --json 2>/dev/null | tr -d ' \n' | grep -o '"artifact":' | wc -l; }

verb() {
  case $1 in
    calibrate) "$cli" calibrate "$project" --samples 4096 ;;
    ptq) "$cli" quantize "$project" --recipe w4a4 ;;
    qat) "$cli" train "$project" --epochs 1 ;;
    save) for n in 2 3 4 5 6 7 8; do printf 'name: w%s\nrules:\n  - select: {sites: [weight]}\n    set: {bits: %s}\n' $n $n > "$work/r$n.yaml"; "$cli" recipe "$project" --set "$work/r$n.yaml" || exit; echo "edit $n" >> "$work/committed"; done ;;
    export) "$cli" export "$project" --target onnx-qdq --out "$work/out.onnx" ;;
  esac
}

lost=0
for what in calibrate ptq qat save export; do
  copy; : > "$work/committed"
  start=$(date +%s%N); verb $what > /dev/null 2>&1; whole=$(( ($(date +%s%N) - start) / 1000000 ))
  echo "$what takes $whole ms undisturbed"
  copy; "$cli" export "$project" --target onnx-qdq --out "$work/out.onnx" > /dev/null 2>&1
  good=$(sha256sum < "$work/out.onnx")
  for round in $(seq "$rounds"); do
    copy; : > "$work/committed"
    before=$(runs)
    ( verb $what ) > /dev/null 2>&1 &
    child=$!
    ms=$(( (RANDOM * 32768 + RANDOM) % (whole > 0 ? whole : 1) ))
    sleep "$(awk "BEGIN{print $ms/1000}")"
    pkill -KILL -P $child 2> /dev/null; kill -KILL $child 2> /dev/null; wait $child 2> /dev/null
    problem=""
    "$cli" info "$project" > "$work/info" 2>&1 || problem="does not open: $(head -1 "$work/info")"
    after=$(runs)
    [ "$after" -ge "$before" ] || problem="runs lost: $before, now $after"
    if [ $what = save ] && [ -s "$work/committed" ]; then
      last=$(tail -1 "$work/committed" | cut -d' ' -f2)
      now=$("$cli" recipe "$project" 2> /dev/null | grep -o 'name: w[0-9]' | head -1 | tr -dc 0-9)
      [ "${now:-0}" -ge "$last" ] || problem="edit lost: committed $last, project holds ${now:-none}"
    fi
    if [ $what = export ]; then
      [ "$(sha256sum < "$work/out.onnx")" = "$good" ] || problem="exported file is neither old nor new"
    fi
    [ -z "$problem" ] || { lost=$((lost + 1)); echo "  $what killed after $ms ms: $problem"; }
  done
  echo "$what: $rounds rounds done"
done
echo "lost: $lost"
[ $lost = 0 ]
