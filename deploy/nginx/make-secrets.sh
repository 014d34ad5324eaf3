#!/bin/sh
# Makes what compose.yaml reads from ./secrets, where it is not there yet. A certificate for NAME
# signed by itself is for trying things out: put a real tls.crt and tls.key in its place.
#
#     ./make-secrets.sh api.example.com
set -eu
name="${1:?the name under which clients will call, such as api.example.com}"
cd "$(dirname "$0")"
# Containers run as other users than yours, so the files can be read by all; the folder cannot
# be entered by anybody else on this machine.
umask 022
mkdir -p secrets
chmod 0700 secrets
cd secrets

keep() { # FILE: write standard input to it, unless it is there
    if [ -e "$1" ]; then cat >/dev/null; else cat >"$1"; fi
}

openssl rand -hex 32 | keep pepper
openssl rand -hex 24 | keep redis_password
openssl rand -hex 24 | keep postgres_password
printf 'requirepass %s\n' "$(cat redis_password)" | keep redis_conf
printf 'redis://:%s@redis:6379/0\n' "$(cat redis_password)" | keep store_url
printf 'postgresql+asyncpg://penstock:%s@postgres:5432/penstock\n' "$(cat postgres_password)" | keep ledger_url
if [ ! -e tls.crt ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
        -subj "/CN=$name" -addext "subjectAltName=DNS:$name" -keyout tls.key -out tls.crt 2>/dev/null
    chmod 0644 tls.key
fi
ls
