#!/bin/sh
# Health check of every container; Docker runs it inside them every few seconds.
#
#   healthcheck.sh URL [--needs URL] [--generates MODEL]
#
# Docker marks a container that stays silent "unhealthy" and leaves it so for ever. So this check does the rest: it
# kills a service that hangs, and the restart policy starts it anew. What hangs is
# - one that answered URL before and now does not, in HANG_TRIES tries of 5 s each, 5 s apart;
# - a VLM server that answers URL and yet generates nothing: no answer to a request for one token of MODEL, and no token
#   of anybody's in all that time. Asked once a minute, and only while its counters stand still.
# One that has not answered yet is still starting, however long it takes. A service that is needed counts for healthy
# or not, never for the kill: it has a check of its own. HANG_TRIES=0 kills nothing.
set -u
url=$1 needs='' model=''
shift
while [ $# -gt 1 ]; do
    case $1 in
        --needs) needs=$2 ;;
        --generates) model=$2 ;;
    esac
    shift 2
done
tries=${HANG_TRIES:-6}
# /dev/shm is writable whatever the user and the image; the start of PID 1 tells this life from the last one.
life=/dev/shm/life-$(cut -d ' ' -f 22 /proc/1/stat)

# It asks this very container, whose certificate has another name than 127.0.0.1.
get() {
    curl -fsS --insecure --noproxy '*' --max-time 5 "$@"
}

answers() {
    get -o /dev/null "$1"
}

heals() {
    left=$((tries - 1))
    while [ "$left" -gt 0 ]; do
        sleep 5
        answers "$1" && return
        left=$((left - 1))
    done
    return 1
}

# SIGKILL to -1 reaches every process of the container but its init, which then ends too. Without an init
# (`init: true`) nothing in a container can kill its first process; outside of one this would end a login session.
restart() {
    case $(cat /proc/1/comm) in
        docker-init | tini | catatonit) ;;
        *) exit 1 ;;
    esac
    # Into the service's own log, where people look.
    echo "healthcheck: $1; killing the service, to be restarted" >/proc/1/fd/2
    kill -9 -1
}

# The counters of all tokens so far, as vLLM and SGLang publish them; nothing where there are none.
tokens() {
    get "${url%/health}/metrics" 2>/dev/null | grep -E '^[a-z]+:(prompt|generation)_tokens_total[{ ]'
}

generates() {
    before=$(tokens)
    [ -n "$before" ] || return 0
    [ "$before" = "$(cat "$life.tokens" 2>/dev/null)" ] || { echo "$before" >"$life.tokens" && return; }
    [ -z "$(find "$life.asked" -mmin -1 2>/dev/null)" ] || return 0
    touch "$life.asked"
    curl -sS -o /dev/null --noproxy '*' --max-time $((tries * 10)) -H 'Content-Type: application/json' \
        --data "{\"model\": \"$model\", \"prompt\": \"1\", \"max_tokens\": 1}" "${url%/health}/v1/completions"
    # 28: it took the request and gave no answer in time. Any answer, an error too, is a sign of life.
    [ $? -ne 28 ] || [ "$before" != "$(tokens)" ]
}

if ! answers "$url"; then
    [ -e "$life" ] && [ "$tries" -gt 0 ] || exit 1
    heals "$url" || restart "no answer from $url in $tries tries"
fi
touch "$life"
if [ -n "$model" ] && [ "$tries" -gt 0 ]; then
    generates || restart "no token in $((tries * 10)) s"
fi
[ -z "$needs" ] || answers "$needs" || exit 1
