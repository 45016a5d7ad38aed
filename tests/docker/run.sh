#!/usr/bin/env bash
# Runs docker-compose.yml for real: a first cycle without any setting, with a runner killed in the
# middle of it; then what was learned must survive a restart of the gateway and of everything.
#
#   tests/docker/run.sh             compiles Evo in the image (minutes)
#   tests/docker/run.sh --prebuilt  takes target/release/evo, built where glibc is not newer than Debian 12's
#
# It needs a Docker engine and one of `docker compose` (v2) and `docker-compose` (v1, 1.28 or later).
# Everything it makes has a project name of its own and is removed at the end. Not part of CI.
set -euo pipefail
cd "$(dirname "$0")/../.."

case "${1:-}" in
  "") target=final ;;
  --prebuilt) target=prebuilt ;;
  *) echo "usage: $0 [--prebuilt]" >&2; exit 2 ;;
esac
if ! docker info >/dev/null 2>&1; then
  echo "nothing was tested: no Docker engine answers (docker info says why)" >&2
  exit 2
fi
if docker compose version >/dev/null 2>&1; then
  tool=(docker compose)
elif docker-compose version >/dev/null 2>&1; then
  tool=(docker-compose)
else
  echo "nothing was tested: neither docker compose nor docker-compose is installed" >&2
  exit 2
fi

# The defaults are what a machine on which Evo runs already uses.
export EVO_KING_PORT="${EVO_KING_PORT:-13000}" EVO_GATEWAY_PORT="${EVO_GATEWAY_PORT:-18080}"
export EVO_BUILD_TARGET="$target" EVO_IMAGE="${EVO_IMAGE:-evo:docker-test}"
compose() {
  "${tool[@]}" --project-name evo-docker-test --env-file .env.example --file docker-compose.yml "$@"
}
evo() {
  compose exec -T king evo "$@"
}
step() {
  echo "==> $*"
}
fail() {
  echo "FAILED: $*" >&2
  compose logs --tail 40 >&2 || true
  exit 1
}
# Tries a command once a second until it succeeds.
wait_for() {
  local what="$1" seconds="$2"
  shift 2
  for _ in $(seq "$seconds"); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 1
  done
  fail "$what did not happen within $seconds s"
}
well() {
  local id
  id="$(compose ps --quiet "$1")"
  [ "$(docker inspect --format '{{.State.Health.Status}}' "$id")" = healthy ]
}
all_well() {
  local service
  for service in king gateway learning building pre-load evaluation skill-manage user; do
    well "$service" || return 1
  done
}
cycle_ended() {
  evo runs list --kind cycle --json | grep -Eq '"kind":"cycle",("candidate":null,)?"status":"completed"'
}
evaluating() {
  evo runs list --json | grep -q '"status":"running","stage":"evaluation"'
}
active() {
  evo skill list --status active --json | grep -o '"count":[0-9]*' | cut -d: -f2
}
# Runs an active skill of this service that takes no input.
run_a_skill_of() {
  local skill
  skill="$(evo skill list --status active --json \
    | grep -oE "\"name\":\"evo-$1-(get-health|get-openapi|list-[a-z]+)\"" | head -1 | cut -d'"' -f4)"
  [ -n "$skill" ] || fail "no skill of $1 without inputs is active"
  evo skill run "$skill" >/dev/null || fail "$skill does not run"
}

trap 'compose down --volumes --timeout 20 >/dev/null 2>&1 || true' EXIT
compose down --volumes >/dev/null 2>&1 || true

step "build and start, $("${tool[@]}" version --short 2>/dev/null | head -1), $(docker version --format '{{.Server.Version}}')"
compose up -d --build

step "kill the evaluation runner in the middle of the first cycle"
wait_for "the evaluation of a candidate" 120 evaluating
compose kill evaluation
compose up -d evaluation

step "wait for the end of the cycle"
wait_for "the end of the first cycle" 300 cycle_ended
evo skill list
before="$(active)"
[ "$before" -ge 8 ] || fail "only $before skills are active"
run_a_skill_of king
wait_for "the health of every service" 60 all_well

step "restart the gateway"
compose restart gateway
wait_for "the health of the gateway" 60 well gateway
run_a_skill_of gateway

step "the two published ports"
if command -v curl >/dev/null; then
  for port in "$EVO_KING_PORT" "$EVO_GATEWAY_PORT"; do
    curl --silent --show-error --fail "http://127.0.0.1:$port/health" || fail "port $port"
    echo
  done
fi

step "stop, king first: who does not end within ten seconds is killed, which its exit code shows"
compose stop --timeout 10 king
compose stop --timeout 10
for id in $(compose ps --all --quiet); do
  result="$(docker inspect --format '{{.Name}} ended with exit code {{.State.ExitCode}}' "$id")"
  echo "$result"
  case "$result" in *" 0") ;; *) fail "$result" ;; esac
done

step "down and up again: nothing is lost"
compose down --timeout 20
compose up -d
wait_for "the health of every service" 90 all_well
after="$(active)"
[ "$after" = "$before" ] || fail "$after active skills after the restart, $before before"
run_a_skill_of king
cycles="$(evo runs list --kind cycle --json | grep -o '"kind":"cycle"' | wc -l)"
[ "$cycles" = 1 ] || fail "$cycles cycles: the first one was started again"

echo "passed: $before active skills, before and after"
