#!/usr/bin/env bash
# Build the image and run it where there is neither Docker nor its registry: as root, on Debian, with
# debootstrap and buildah. In place of the base image is a Debian with the Python 3.12 of PYTHON_PREFIX.
# The container is a process as user 10001 without capabilities, with a read-only root file system,
# a volume and a /tmp; it has to be ready, to answer, and to end in ten seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=${PYTHON_PREFIX:-$(.venv/bin/python -c 'import sys; print(sys.base_prefix)')}
base=docker.io/library/python:3.12-slim-bookworm
place=$(mktemp -d)
volume=$place/results root=$place/root
trap 'umount -l "$root" 2> /dev/null || true; rm -rf "$place"' EXIT

if ! buildah images -q "$base" > /dev/null 2>&1; then
    libraries=libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,libreadline8,zlib1g,libuuid1,libexpat1
    debootstrap --variant=minbase --include="ca-certificates,$libraries" bookworm "$place/base" > /dev/null
    cp -a "$prefix/." "$place/base/usr/local/"
    ln -sf python3.12 "$place/base/usr/local/bin/python"
    sed -i '1s|.*|#!/usr/local/bin/python|' "$place"/base/usr/local/bin/pip*
    cp /etc/ssl/certs/ca-certificates.crt "$place/base/etc/ssl/certs/"
    chroot "$place/base" ldconfig
    container=$(buildah from scratch)
    buildah copy -q "$container" "$place/base" / > /dev/null
    buildah config --env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "$container"
    buildah commit -q "$container" "$base" > /dev/null
    buildah rm "$container" > /dev/null
fi
buildah bud --isolation chroot --pull-never --format docker \
    --ignorefile deploy/Dockerfile.dockerignore --file deploy/Dockerfile --tag touchstone .

container=$(buildah from --pull-never localhost/touchstone)
image=$(buildah mount "$container")
mkdir -p "$volume" "$root"
chown 10001:10001 "$volume"
mapfile -t environment < <(buildah inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$container" | grep -v -e '^SSL_' -e '^$')

# shellcheck disable=SC2016  # expanded inside
inside() { # in namespaces of its own, as the image's user
    unshare --mount --pid --fork bash -euc '
        image=$1 volume=$2 root=$3; shift 3
        mount --make-rprivate /
        mount --bind "$image" "$root" && cd "$root"
        mount --bind "$volume" app/results
        mount -t tmpfs -o mode=1777 tmpfs tmp
        mount -t proc proc proc
        mount -t tmpfs -o mode=755 tmpfs dev
        for device in null zero random urandom; do touch dev/$device; mount --bind /dev/$device dev/$device; done
        mkdir dev/shm && mount -t tmpfs -o mode=1777 tmpfs dev/shm
        mount -o remount,ro,bind "$root"
        exec chroot . setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs \
            --bounding-set=-all --inh-caps=-all env -i "$@"
    ' bash "$image" "$volume" "$root" "${environment[@]}" sh -c 'cd /app && exec "$@"' sh "$@"
}

inside sh -c '! touch /app/x 2> /dev/null && touch results/x /tmp/x && rm results/x && id'
inside touchstone keys add rehearsal > "$place/key"
inside touchstone serve --host 0.0.0.0 --port 8080 > "$place/log" 2>&1 &
service=$!
started=$SECONDS
until curl -sf http://127.0.0.1:8080/health/ready > /dev/null; do
    kill -0 $service || { cat "$place/log"; exit 1; }
    ((SECONDS - started < 900)) || { cat "$place/log"; exit 1; }
    sleep 1
done
echo "ready after $((SECONDS - started)) s"
curl -sf -H "Authorization: Bearer $(cat "$place/key")" -H 'Content-Type: application/json' \
    -d '{"model_id": "interface", "inputs": {"film": "film 3", "Tg_num": 420}}' \
    http://127.0.0.1:8080/predict | head -c 200
started=$SECONDS
kill "$(pgrep -P "$(pgrep -P $service)")" # unshare itself ends with what it started
wait $service || true
echo; echo "ended after $((SECONDS - started)) s"
((SECONDS - started <= 10))
buildah rm "$container" > /dev/null
