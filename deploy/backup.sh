#!/bin/sh
# Keeps what a command prints as a backup, in a folder that only its owner may enter:
#     deploy/backup.sh FOLDER DAYS COMMAND...
# Backups that are older than DAYS days are removed once there is a new one. A command that fails or prints nothing
# leaves everything as it was, and this ends with a status other than 0.
set -eu
umask 077
if [ $# -lt 3 ] || [ -z "$2" ] || [ "$(printf %s "$2" | tr -d 0-9)" ]; then
    echo "say: $0 FOLDER DAYS COMMAND..., such as $0 /backup/evertoken 14 pg_dump --format custom evertoken" >&2
    exit 64
fi
folder=$1 days=$2
shift 2
mkdir -p "$folder"
chmod 700 "$folder"
file=$folder/evertoken-$(date -u +%Y%m%dT%H%M%SZ).dump
trap 'rm -f "$file.part"' EXIT
"$@" > "$file.part" || {
    status=$?
    echo "$1 failed: there is no new backup" >&2
    exit "$status"
}
if ! [ -s "$file.part" ]; then
    echo "$1 printed nothing: there is no new backup" >&2
    exit 1
fi
sync "$file.part"
mv "$file.part" "$file"
find "$folder" -maxdepth 1 -type f -name 'evertoken-*.dump*' -mtime "+$days" -delete
