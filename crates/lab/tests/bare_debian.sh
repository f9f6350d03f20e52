#!/bin/sh
# The lesson on a bare Debian, set up from nothing by an ordinary user: bare_debian.sh [FOLDER [CACHE]]
#
# In FOLDER (default: target/bare-debian) it makes a Debian by debootstrap that has only what the README asks for: Python with venv, a C++
# compiler, make, and this machine's Rust, without rustup. There the user `ada` clones the lesson, runs `make setup` and two notebooks.
# It needs root, debootstrap, 8 GB and a quarter of an hour; what it says last are the seconds of the set-up. With a CACHE, a folder of
# downloads and built programs as this machine's own, set-up starts from a copy of that.
set -eu
clone=$(cd "$(dirname "$0")/../../.." && pwd)
folder=${1:-$clone/target/bare-debian}
cache=${2:-}
if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo "skipped: it needs root and debootstrap (apt install debootstrap)"
    exit 0
fi
if [ -z "${LESSON_APART:-}" ]; then # what is mounted goes when this ends
    LESSON_APART=1 exec unshare --mount --propagation private sh "$0" "$folder" "$cache"
fi
. /etc/os-release
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
rm -rf "$folder"
mkdir -p "$folder"
echo "== Debian $VERSION_CODENAME"
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,g++,make "$VERSION_CODENAME" "$folder" "$archive" >"$folder.log"

# The network as this machine has it: names, certificates, and settings of proxies.
cp /etc/resolv.conf /etc/hosts "$folder/etc/"
rm -rf "$folder/etc/ssl/certs" # links of its own
cp -rL /etc/ssl/certs "$folder/etc/ssl/"
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$folder/etc/"
network=$(env | grep -E '^[A-Za-z_]*(proxy|PROXY|CERT|CAINFO|CA_BUNDLE)[A-Z_]*=[^ ]*$' || true)

rust=$(rustc --print sysroot)
mkdir -p "$folder/opt/rust"
cp -a "$rust/bin" "$rust/lib" "$folder/opt/rust/"
for place in proc dev; do
    mount --rbind "/$place" "$folder/$place"
done
chroot "$folder" useradd --create-home --shell /bin/sh ada
mkdir "$folder/home/ada/lesson"
git -C "$clone" archive HEAD | tar -x -C "$folder/home/ada/lesson"
if [ -n "$cache" ]; then
    mkdir "$folder/home/ada/.cache"
    cp -a "$cache" "$folder/home/ada/.cache/diffusion-lesson"
fi
chroot "$folder" chown -R ada:ada /home/ada

as_ada() {
    # shellcheck disable=SC2086 # one word for each variable
    chroot --userspec=ada:ada "$folder" env -i HOME=/home/ada USER=ada LANG=C.UTF-8 PATH=/opt/rust/bin:/usr/bin:/bin $network \
        sh -c "cd ~/lesson && $1"
}
echo "== set-up"
began=$(date +%s)
as_ada "make setup"
ended=$(date +%s)
echo "== two notebooks"
as_ada "cargo run --quiet --package lab -- run notebooks/00_rust_in_ten_minutes.ipynb notebooks/01_what_is_diffusion.ipynb"
as_ada "make doctor"
umount -R "$folder/proc" "$folder/dev"
rm -rf "$folder"
echo "set-up${cache:+ with a cache} took $((ended - began)) seconds on $(nproc) cores"
