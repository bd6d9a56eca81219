#!/bin/sh
# Debian packages of the service tests: a browser, PostgreSQL, an ssh server, pdsh. Installs only what is missing.
set -eu

missing=
need() { # COMMAND PACKAGE
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need chromium chromium
need psql postgresql
need sshd openssh-server
need pdsh pdsh
# Debian keeps the database server itself out of PATH.
command -v postgres >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 \
    || missing="$missing postgresql"

test -n "$missing" || exit 0
echo "Installing Debian packages:$missing"
command -v apt-get >/dev/null || { echo "There is no apt-get: install them by hand, then run again."; exit 1; }
sudo=
test "$(id -u)" = 0 || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# The tests start their own servers; none shall start because its package was installed.
policy=/usr/sbin/policy-rc.d
if ! test -e "$policy"; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
    trap '$sudo rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
