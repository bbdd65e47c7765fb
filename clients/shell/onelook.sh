#!/bin/sh
# Turn a picture into a 3D model with curl alone.
#
#   ONELOOK_URL=http://127.0.0.1:8000 clients/shell/onelook.sh examples/robot.png out texture_size=1024
#
# ONELOOK_API_KEY is sent where it is set. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
set -eu

service="${ONELOOK_URL:-http://127.0.0.1:8000}"
if [ $# -lt 2 ]; then
    echo "usage: onelook.sh IMAGE FOLDER [option=value ...]" >&2
    exit 2
fi
picture=$1 folder=$2
shift 2
mkdir -p "$folder"

call() { # curl with the key, which stands in no process list
    if [ -n "${ONELOOK_API_KEY:-}" ]; then
        printf 'header = "Authorization: Bearer %s"\n' "$ONELOOK_API_KEY" | curl --config - "$@"
    else
        curl "$@"
    fi
}

field() { # the text of one field of a JSON answer
    printf '%s' "$1" | sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p"
}

for pair; do
    shift
    set -- "$@" --form-string "$pair"
done
# A full queue is met by curl itself: it waits as long as Retry-After says and comes again.
answer=$(call --silent --show-error --retry 5 --form "image=@\"$picture\"" "$@" \
    --write-out '\n%{http_code}' "$service/api/v1/image-to-3d") || exit 1
code=${answer##*
}
body=${answer%
*}
if [ "$code" != 200 ]; then
    echo "$code $(field "$body" detail) (id $(field "$body" id))" >&2
    exit 1
fi
for name in model_url video_url preview_image_url no_background_image_url contact_sheet_url \
    gaussian_url views_image_url; do
    url=$(field "$body" "$name")
    [ -n "$url" ] || continue
    call --silent --show-error --fail --output "$folder/${url##*/}" "$service$url"
    echo "$folder/${url##*/}"
done
