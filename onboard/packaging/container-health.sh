#!/usr/bin/env bash
# 0 while the daemon in this container has a position: its metrics sink's /health, without a program for HTTP.
#
#   crossfixd-health [HOST [PORT]]        127.0.0.1, and 9464, when left out
set -euo pipefail
exec 3<>"/dev/tcp/${1:-127.0.0.1}/${2:-9464}"
printf 'GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
read -r -t 2 _ status _ <&3
[ "$status" = 200 ]
