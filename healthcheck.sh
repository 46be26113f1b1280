#!/bin/sh
# Health check of both containers; Docker runs it inside them every few seconds.
#
#   healthcheck.sh URL [URL of a service that it needs]
#
# Docker marks a container that stays silent "unhealthy" and leaves it so for ever. So this check does the rest: a
# service that has answered before and now gives no answer in HANG_TRIES tries, of 5 s each and 5 s apart, is
# killed, and the restart policy starts it anew. One that has not answered yet is still starting, however long it
# takes. A service that is needed counts for healthy or not, never for the kill: it has a check of its own.
#
# SIGKILL to -1 reaches every process of the container but its init, which then ends too. Without an init
# (`init: true`) nothing in a container can kill its first process.
set -u
tries=${HANG_TRIES:-6}
# /dev/shm is writable whatever the user and the image; the start of PID 1 tells this life from the last one.
answered=/dev/shm/answered-$(cut -d ' ' -f 22 /proc/1/stat)

answers() {
    curl -fsS -o /dev/null --noproxy '*' --max-time 5 "$1"
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

if ! answers "$1"; then
    [ -e "$answered" ] && [ "$tries" -gt 0 ] || exit 1
    heals "$1" || {
        # Into the service's own log, where people look.
        echo "healthcheck: no answer from $1 in $tries tries; killing the service, to be restarted" >/proc/1/fd/2
        kill -9 -1
    }
fi
touch "$answered"
[ $# -lt 2 ] || answers "$2" || exit 1
