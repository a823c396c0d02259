#!/bin/sh
# Make the secret files that docker-compose.yml mounts, in var/secrets; a file that exists is left as it is.
# Two are yours to fill: tiktok_app_secret (from TikTok's portal) and keyring (`celery -A worker keys new`).
set -eu
umask 022
cd "$(dirname "$0")/.."
folder=var/secrets
mkdir -p "$folder"
# The folder keeps other users of this host out. The files are readable, because the processes in the
# containers run as users of their own and see the files alone, not the folder.
chmod 0700 "$folder"

password() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }

keep() { # keep NAME TEXT: write the text to the file, unless the file is there
    if [ -s "$folder/$1" ]; then
        echo "$folder/$1 is there already"
    else
        printf '%s' "$2" > "$folder/$1"
        echo "$folder/$1 made"
    fi
}

keep postgres_password "$(password)"
keep redis_password "$(password)"
keep notice_secret "$(password)"
keep flower_auth "operator:$(password)"
keep database_url "postgresql://evertoken:$(cat "$folder/postgres_password")@postgres:5432/evertoken"
keep redis_url "redis://:$(cat "$folder/redis_password")@redis:6379/0"
for name in tiktok_app_secret keyring; do
    [ -s "$folder/$name" ] || { : > "$folder/$name"; echo "$folder/$name is empty: yours to fill"; }
done
