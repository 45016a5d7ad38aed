#!/bin/sh
# The demo of docs/repair.md from its beginning to its end: sh docs/demo/repair.sh
# It takes about a minute, needs `evo`, python3 and curl, keeps everything in a fresh folder and ends what it
# started. Ports 3000, 8080 and 8000 have to be free.
set -u
EVO=${EVO:-evo}
EVO_HOME=$(mktemp -d)
export EVO_HOME
here=$(dirname "$0")
up= weather=
finish() {
    kill $up $weather 2>/dev/null
    wait 2>/dev/null
    rm -rf "$EVO_HOME"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Shows a command and runs it.
run() {
    echo "\$ $*"
    "$@" 2>&1
    echo
}
evo() { "$EVO" "$@"; }
call() { evo skill run weather-get-weather --set "city=$1"; }
# Calls until the skill's version in use is the one given.
until_version() {
    number=0
    while ! evo skill list --source weather | grep -q "weather-get-weather  *active  *$1 "; do
        number=$((number + 1))
        for city in oslo paris cairo lima tokyo; do call $city >/dev/null 2>&1; done
        [ $number -lt 60 ] || { echo "version $1 did not come into use"; exit 1; }
    done
    echo "after $((number * 5)) calls"
    echo
}

mkdir -p "$EVO_HOME/config"
cat > "$EVO_HOME/config/sources.toml" <<'TOML'
[[sources]]
name = "weather"
kind = "openapi"
location = "http://127.0.0.1:8000/openapi.json"
allow_origins = ["http://127.0.0.1:8000"]
TOML
cat > "$EVO_HOME/config/king.toml" <<'TOML'
sitting_gap_ms = 1000     # 2 minutes by default

[skills.canary]
reports = 5               # 20 by default
window_ms = 5000          # 24 hours by default
TOML

python3 "$here/weather.py" &
weather=$!
"$EVO" up > "$EVO_HOME/up.txt" 2>&1 &
up=$!
for _ in $(seq 300); do grep -q "goes on running" "$EVO_HOME/up.txt" && break; sleep 0.2; done

run evo skill list
run call oslo
run curl -s -X POST http://127.0.0.1:8000/deploy/2
for city in oslo paris cairo lima tokyo; do run call $city; done
run evo learn --list
run evo learn --start
run evo runs show latest
run evo skill show weather-get-weather
until_version 0.1.1
run call oslo
run evo skill history weather-get-weather
run curl -s -X POST http://127.0.0.1:8000/deploy/1
until_version 0.1.0
run call oslo
run evo skill history weather-get-weather
run evo learn --list
run evo learn --start
