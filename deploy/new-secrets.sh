#!/bin/sh
# Make the secret files that docker-compose.yml mounts, in var/secrets; a file that holds something is left as it is, so
# it may be run again at any time. The secret of the app (from TikTok's portal) is asked for on a terminal.
set -eu
umask 022
cd "$(dirname "$0")/.."
folder=var/secrets
# What prints a keyring; without Docker: EVERTOKEN='/opt/evertoken/bin/celery -A worker' deploy/new-secrets.sh
evertoken=${EVERTOKEN:-docker run --rm evertoken:0.1.0 celery -A worker}
mkdir -p "$folder"
# The folder keeps other users of this host out. The files are readable, because the processes in the
# containers run as users of their own and see the files alone, not the folder.
chmod 0700 "$folder"

password() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }

keep() { # keep NAME TEXT: write the text to the file, unless the file holds something
    if [ -s "$folder/$1" ]; then
        echo "$folder/$1 is there already"
    elif [ -n "$2" ]; then
        printf '%s' "$2" > "$folder/.$1.new"
        mv "$folder/.$1.new" "$folder/$1"
        echo "$folder/$1 made"
    else
        : > "$folder/$1"
        echo "$folder/$1 is empty: yours to fill"
    fi
}

new_keyring() { # print a keyring, unless there is one
    [ -s "$folder/keyring" ] || $evertoken keys new
}

app_secret() { # ask for the app's secret on a terminal, unless there is one
    if [ -s "$folder/tiktok_app_secret" ] || [ ! -t 0 ]; then
        return
    fi
    trap 'stty echo' EXIT INT TERM
    stty -echo
    printf 'The secret of your app, from the portal of TikTok (it is not shown): ' >&2
    read -r secret || secret=
    stty echo
    trap - EXIT INT TERM
    echo >&2
    printf %s "$secret"
}

keep postgres_password "$(password)"
keep redis_password "$(password)"
keep rabbitmq_password "$(password)"
keep notice_secret "whsec_$(head -c 32 /dev/urandom | base64)"
keep flower_auth "operator:$(password)"
keep desk_secret "$(password)"
keep desk_password "$(password)"
keep grafana_password "$(password)"
keep database_url "postgresql://evertoken:$(cat "$folder/postgres_password")@postgres:5432/evertoken"
# Workers connect by a role that changes no table. Where the database is your own, they connect as before until you give
# them a role and write its address into the file.
case $(cat "$folder/database_url") in
    *"@postgres:5432/evertoken")
        workers="postgresql://evertoken_worker:$(password)@postgres:5432/evertoken"
        dashboard=$(password)
        ;;
    *) workers=$(cat "$folder/database_url") dashboard= ;;
esac
keep worker_database_url "$workers"
# Of Grafana's role; while it is empty, no such role is made.
keep dashboard_password "$dashboard"
keep redis_url "redis://:$(cat "$folder/redis_password")@redis:6379/0"
# Read only where RabbitMQ carries the messages.
keep broker_url "amqp://evertoken:$(cat "$folder/rabbitmq_password")@rabbitmq:5672/evertoken"
keep tiktok_app_secret "$(app_secret)"
if keyring=$(new_keyring); then
    keep keyring "$keyring"
    echo "keep a copy of $folder/keyring elsewhere: without it no token can be opened again"
else
    keep keyring ""
    echo "no keyring could be made; build the image (docker compose build), then run this again" >&2
    exit 1
fi
